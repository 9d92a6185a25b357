#!/bin/bash
# Processor seconds of compiling, one compiler at a time, as "seconds<tab>what" lines:
# compile_time.sh [--compiler C++] [--torch FOLDER-WITH-torch/torch.h] [--quick: README's program alone]
set -euo pipefail
compiler=g++ torch= quick=
while [ $# -gt 0 ]; do
    case $1 in
    --compiler) compiler=$2; shift 2 ;;
    --torch) torch=$2; shift 2 ;;
    --quick) quick=yes; shift ;;
    *) echo "usage: $0 [--compiler C++] [--torch FOLDER] [--quick]" >&2; exit 2 ;;
    esac
done
source=$(realpath "$(dirname "$0")/..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# timed WHAT OPTIONS…: compiles to an object.
timed() {
    local what=$1 spent TIMEFORMAT='%U %S'
    shift
    spent=$({ time "$compiler" -std=c++20 -O2 -c -o "$work/object.o" "$@" >&2 2>"$work/messages"; } 2>&1) || {
        cat "$work/messages" >&2
        echo "cannot compile: $what" >&2
        exit 1
    }
    awk -v what="$what" '{ printf "%.1f\t%s\n", $1 + $2, what }' <<<"$spent"
}

sed -n '/^```cpp$/,/^```$/p' "$source/README.md" | sed '1d; /^```$/q' | sed '$d' >"$work/program.cpp"
library=(-I"$source/include")
timed "README's program, headers alone" "${library[@]}" "$work/program.cpp"
[ -z "$quick" ] || exit 0
kernels=(-include lowrank/backend/cpu/separate_kernels.hpp)
timed "README's program with lowrank::kernels" "${library[@]}" "${kernels[@]}" "$work/program.cpp"
for unit in finetune.cpp finetune/*.cpp shared/*.cpp; do
    for file in "$source/examples/"$unit; do
        [ -e "$file" ] || continue
        timed "${file#"$source/"}" "${library[@]}" "${kernels[@]}" -I"$source/examples/shared" "$file"
    done
done
if [ -n "$torch" ]; then
    printf '#include <torch/torch.h>\nint main() { return torch::ones({1}).item<int>() - 1; }\n' >"$work/torch.cpp"
    timed "a program of one line that includes torch/torch.h" -I"$torch" -I"$torch/torch/csrc/api/include" "$work/torch.cpp"
fi
