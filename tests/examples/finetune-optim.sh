#!/usr/bin/env bash
# Tries finetune's optimizers: where moments lie changes no bit, what they are changes little, and a run resumes.
. "$(dirname "$0")/trial.sh"

fresh_model model
cp "$fixtures/peft_data.jsonl" data.jsonl
# A rank so high that factors have the 4,096 elements from which moments are in 8 bits.
base=(--model model --data data.jsonl --threads 1 --max-steps 6 --target-modules all-linear --r 200)
declare -A sums
for optim in adamw paged_adamw adamw_8bit paged_adamw_8bit; do
    expect 0 "saved after 6 of 6 steps" "${base[@]}" --optim $optim --output $optim
    sums[$optim]=$(sha256sum <$optim/adapter_model.safetensors)
done
[ "${sums[adamw]}" = "${sums[paged_adamw]}" ] || fail "paged_adamw has the bits of adamw"
[ "${sums[adamw_8bit]}" = "${sums[paged_adamw_8bit]}" ] || fail "paged_adamw_8bit has the bits of adamw_8bit"
[ "${sums[adamw]}" != "${sums[adamw_8bit]}" ] || fail "moments in 8 bits change something"

# From a checkpoint, where moments may lie elsewhere but must be of the same kind.
expect 0 "saved after 6 of 6 steps" "${base[@]}" --optim adamw_8bit --save-steps 3 --output run
rm -r run/checkpoint-6
expect 2 "optim was" "${base[@]}" --optim adamw --save-steps 3 --output run --resume
expect 0 "resumed from" "${base[@]}" --optim paged_adamw_8bit --save-steps 3 --output run --resume
cmp -s run/adapter_model.safetensors adamw_8bit/adapter_model.safetensors || fail "a resumed run has other bits"

# A place that cannot be written.
TMPDIR=/nonexistent expect 1 "/nonexistent/lowrank-" "${base[@]}" --optim paged_adamw --output new
[ -e new ] && fail "a refused run writes nothing"
expect 2 "--optim: sgd not in {adamw,adamw_8bit,paged_adamw,paged_adamw_8bit}" "${base[@]}" --optim sgd --output new

finish
