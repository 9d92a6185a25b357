#!/usr/bin/env bash
# Tries finetune --dtype bf16: losses near fp32's, the same bits where they must be the same, memory as estimated.
. "$(dirname "$0")/trial.sh"
root=$(cd "$fixtures/../.." && pwd)

# Two runs of 50 steps that differ in their type alone: no loss differs by more than 1%.
losses() { sed -nE 's/.*"step":[0-9]+,.*"loss":([0-9.e+-]+),.*/\1/p' "$1/metrics.jsonl"; }
alike() { # MODEL DATA ARGS…
    local type
    for type in fp32 bf16; do
        rm -rf $type
        expect 0 "saved after 50 of 50 steps" --model "$1" --data "$2" --output $type --dtype $type --max-steps 50 \
            --logging-steps 1 "${@:3}"
    done
    paste <(losses fp32) <(losses bf16) >both
    echo "$1: the largest difference of a loss is $(awk '{ d = ($2 - $1) / $1; if (d < 0) d = -d; if (d > most) most = d }
        END { printf "%.2f%%", 100 * most }' both)"
    [ "$(wc -l <both)" = 50 ] || fail "50 losses of each type: $1"
    awk '{ d = $2 - $1; if (d > 0.01 * $1 || -d > 0.01 * $1) exit 1 }' both || fail "losses within 1%: $1"
    cmp -s <(losses fp32) <(losses bf16) && fail "bf16 rounds: $1"
}
alike "$root/examples/demo/model" "$root/examples/demo/train.jsonl" --target-modules all-linear --lora-alpha 16 \
    --learning-rate 2e-3
names=$root/../shared/data/text/names.txt slm=$root/../shared/data/models/slm4096
if [ -e "$names" ] && [ -e "$slm" ]; then
    head -c 60000 "$names" >names.txt
    alike "$slm" names.txt --learning-rate 2e-3
else
    echo "skipped: found no $slm or no $names"
fi

# Types of matrices: an fp32 directory, and one of bf16, which fp32 can read, too; adapters that either type opens.
fresh_model model
cp "$fixtures/peft_data.jsonl" data.jsonl
printf '{"input_ids": [3, 14, 15, 92, 65, 35, 89]}\n{"input_ids": [7, 9, 32, 38, 46]}\n' >ids.jsonl
base=(--model model --data data.jsonl --max-steps 3 --learning-rate 1e-2 --dtype bf16)
for type in fp32 bf16; do
    rm -rf small
    expect 0 "saved" --model "$fixtures/gpt2_bf16" --data ids.jsonl --output small --max-steps 3 --dtype $type
done
expect 0 "saved" "${base[@]}" --output one --threads 1 --lora-dropout 0.1
expect 0 "saved" --model model --data data.jsonl --init-adapter one --output again --max-steps 1
expect 2 "--dtype: fp16 not in {fp32,bf16}" "${base[@]}" --output new --dtype fp16

# The same bits for any number of threads, and with checkpointing.
same() { # WHAT ARGS…
    rm -rf other
    expect 0 "saved" "${base[@]}" --output other --lora-dropout 0.1 "${@:2}"
    cmp -s one/adapter_model.safetensors other/adapter_model.safetensors || fail "the same bits: $1"
}
same "two threads" --threads 2
same "checkpointing" --threads 1 --gradient-checkpointing
rm -rf other
expect 0 "saved" --model model --data data.jsonl --max-steps 3 --learning-rate 1e-2 --lora-dropout 0.1 --output other
cmp -s one/adapter_model.safetensors other/adapter_model.safetensors && fail "bf16 rounds"

# The estimate of memory is near the peak where activations are most of it.
peak=$("$program" --model "$root/examples/demo/model" --data "$root/examples/demo/train.jsonl" --packing --output packed \
    --max-steps 2 --per-device-train-batch-size 16 --threads 1 2>/dev/null | sed -nE 's/^peak memory ([0-9]+) MB, estimated ([0-9]+) MB$/\1 \2/p')
echo "peak and estimate in MB: $peak"
awk '{ exit !($2 > 0.85 * $1 && $2 < 1.15 * $1) }' <<<"$peak" || fail "the estimate is within 15% of the peak: $peak"

finish
