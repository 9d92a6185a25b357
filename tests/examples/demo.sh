#!/usr/bin/env bash
# Runs the demo for real, without arguments, and looks at what it printed and wrote.
. "$(dirname "$0")/trial.sh"

for option in demo-directory output threads r learning-rate num-train-epochs per-device-train-batch-size show seed; do
    "$program" --help | grep -q -- "^  --$option\b" || fail "--help lacks --$option"
done

expect 0 "exact answers on 100 held-out prompts"
grep -Eq "^trainable params: [0-9,]+ \|\| all params: [0-9,]+ \|\| trainable%: " out || fail "the trainable parameters"
grep -Eq "^step +1/[0-9]+  loss [0-9.]+  learning rate [0-9.]+  +[0-9]+ tokens/s" out || fail "loss and rate"
read -r before after < <(sed -n 's/^exact answers on .*: \([0-9]*\) before, \([0-9]*\) after$/\1 \2/p' out)
[ "${before:-100}" -le 10 ] && [ "${after:-0}" -ge 80 ] || fail "at most 10 before and 80 after, found '$before', '$after'"
for file in adapter_config.json adapter_model.safetensors; do
    grep -q "^wrote .*/demo-adapter/$file " out || fail "no line about $file"
    [ -s "demo-adapter/$file" ] || fail "no $file"
done
cp demo-adapter/adapter_model.safetensors first

# The command that it prints works.
generate=$(dirname "$program")/generate
if [ -x "$generate" ]; then
    sed -n '/^Ask it yourself:/,/^$/p' out | sed 1d >command
    sed -i "s|\./generate|$generate|" command
    bash command >out 2>err
    judge 0 $? "Answer: " "the printed command"
    grep -Eq "^Answer: [a-z]+$" out || fail "a bare answer"
fi

# Less training fails, and says so with its exit code; an adapter of an earlier demo is replaced.
expect 1 "expected at most 10 exact answers before and at least 80 after" --num-train-epochs 0.01 --show 0
cmp -s first demo-adapter/adapter_model.safetensors && fail "the adapter of the new run"

mkdir other && touch other/file
expect 2 "exists and is not empty" --output other
expect 1 "config.json" --demo-directory other --output new
[ -e new ] && fail "a refused run writes nothing"
ls -d ./*.tmp-* 2>/dev/null && fail "temporary files stay"

finish
