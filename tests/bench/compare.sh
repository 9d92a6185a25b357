#!/bin/bash
# bench/compare.py, on tiny sizes and with lowrank as its own peer, finds figures, draws plots and updates a page:
# compare.sh BUILD-FOLDER WORK-FOLDER
set -euo pipefail
build=$1 work=$2
source=$(realpath "$(dirname "$0")/../..")
rm -rf "$work"
mkdir -p "$work"
# The page as it was before anything was measured.
sed '/^<!-- figures:/,/^<!-- end -->/{/^<!--/!d; s/^<!-- end/Not measured yet.\n&/}' "$source/docs/performance.md" > "$work/page.md"
python3 -B "$source/bench/compare.py" --quick --against-itself --only step,decode,tokenizer,start,kernels,ops,plots --build "$build" \
    --work "$work" --output "$work/results" --update "$work/page.md"

fail() { echo "$1"; exit 1; }
[ "$(grep -c 'Not measured yet' "$work/page.md")" = 1 ] || fail "expected all figures but those of compile time on the page"
for axis in length batch rank layers width; do
    for folder in results page; do
        grep -q '<circle' "$work/$folder/step-by-$axis.svg" || fail "$folder/step-by-$axis.svg: expected points"
    done
done
python3 - "$work/results/results.json" <<'PYTHON'
import json, sys

found = json.load(open(sys.argv[1]))
for section in ("step", "decode"):
    for name, result in found[section].items():
        assert result["rounds"] == 1 and 0.8 < result["ratio"]["memory"] < 1.25, (name, result)
assert found["tokenizer"]["ratio"]["text_tokens"] == 1 if "ratio" in found["tokenizer"] else found["tokenizer"]
assert all(b["of_peak"] > 0 for b in found["kernels"])
for name in ("exp", "softmax"):
    assert found["ops"]["ours"][name]["forward"] > 0 and found["ops"]["of_read_bandwidth"][name] > 0, found["ops"]
PYTHON
rm -rf "$work"
