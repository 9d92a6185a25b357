#!/usr/bin/env bash
# Tries finetune's --init-lora-weights: what was trained is what the saved adapter does on the untouched model.
. "$(dirname "$0")/trial.sh"
evaluate=$(dirname "$program")/evaluate

fresh_model model
data=$fixtures/peft_data.jsonl
plain=$("$evaluate" --model model --data "$data" 2>err | grep -o 'loss [0-9.]*') || fail "evaluate the plain model"

for start in orthogonal pissa pissa_niter_4 olora eva loftq; do
    more=()
    [ "$start" = loftq ] && more=(--quantize nf4)
    expect 0 "saved" --model model "${more[@]}" --data "$data" --eval-data "$data" --eval-steps 4 --max-steps 4 --r 4 --lora-alpha 6 \
        --learning-rate 0.02 --target-modules c_attn,c_fc --init-lora-weights "$start" --output "$start"
    trained=$(grep -o 'step 4  eval_loss [0-9.]*' out)
    "$evaluate" --model model "${more[@]}" --adapter "$start" --data "$data" >out 2>err || fail "evaluate $start"
    awk -v a="${trained##* }" -v b="$(grep -o 'loss [0-9.]*' out | cut -d' ' -f2)" -v p="${plain##* }" \
        'BEGIN { exit !(a - b < 2e-4 && b - a < 2e-4 && a > 0 && a < p) }' || fail "$start: trained to $trained, saved as $(cat out), before $plain"
done
for start in pissa olora; do
    grep -q '"r": 8' "$start/adapter_config.json" || fail "$start: not saved as twice the rank"
    grep -q '"lora_alpha": 12' "$start/adapter_config.json" || fail "$start: another scale"
    grep -q '"init_lora_weights": true' "$start/adapter_config.json" || fail "$start: not plain LoRA"
done
grep -q '"transformer.h.0.attn.c_attn"' eva/adapter_config.json || fail "eva: no paths"

# A run goes on from a checkpoint as if it had not stopped.
run=(--model model --data "$data" --r 4 --init-lora-weights pissa --save-steps 2)
expect 0 "saved" "${run[@]}" --max-steps 4 --output whole
expect 0 "saved" "${run[@]}" --max-steps 4 --output parts
rm -r parts/checkpoint-4
expect 0 "resumed" "${run[@]}" --max-steps 4 --output parts --resume
cmp -s whole/adapter_model.safetensors parts/adapter_model.safetensors || fail "another adapter after a resume"

expect 2 "expected --quantize nf4" --model model --data "$data" --init-lora-weights loftq --output x
expect 2 "use_dora" --model model --data "$data" --method dora --init-lora-weights pissa --output x
expect 2 "--init-lora-weights" --model model --data "$data" --method full --init-lora-weights eva --output x
[ -e x ] && fail "something was written for an error"

finish
