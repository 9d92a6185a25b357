#!/usr/bin/env bash
# Compares all methods for a few steps on the demo's data, and some on data of the fixtures, and looks at what is written.
. "$(dirname "$0")/trial.sh"

for option in methods model data eval-data eval-split output overwrite-output-dir r lora-alpha learning-rate \
    num-train-epochs max-steps per-device-train-batch-size per-device-eval-batch-size threads seed; do
    "$program" --help | grep -q -- "^  --$option\b" || fail "--help lacks --$option"
done

# No arguments are needed but for time: every method has its row, its curve, and what it trained.
methods='lora rslora dora lora+ vera ia3 lora-fa adalora full qlora'
expect 0 "wrote comparison.json, comparison.svg" --max-steps 6 --threads 1
for method in $methods; do
    grep -Eq "^${method/+/\\+} +[0-9.e-]+ +[0-9]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9]+ +[0-9.]+$" out || fail "no row of $method"
    grep -q "\"method\": \"$method\"" compare-methods/comparison.json || fail "no $method in comparison.json"
    file=adapter_model.safetensors
    [ $method = full ] && file=model.safetensors
    [ -s "compare-methods/$method/$file" ] || fail "$method wrote no $file"
done
[ "$(grep -c '<path class="line"' compare-methods/comparison.svg)" = 10 ] || fail "ten curves"
grep -q '"eval_loss": null' compare-methods/comparison.json && fail "a loss is no number"
ls -d ./*.tmp-* 2>/dev/null && fail "temporary files stay"

# Other data, a part of which evaluates; only some methods.
fresh_model model
cp "$fixtures/peft_data.jsonl" data.jsonl
expect 0 "72 rows to train on, 8 to evaluate on, 2 steps of 4 rows" --model model --data data.jsonl --methods lora,ia3 \
    --max-steps 2 --per-device-train-batch-size 4 --output other
[ "$(ls other | tr '\n' ' ')" = "comparison.json comparison.svg ia3 lora " ] || fail "only what was asked for"

expect 2 "--methods: bogus not in" --methods lora,bogus
expect 2 "exists and is not empty" --max-steps 1 --output other
expect 2 "--data: found --model or --eval-data without it" --model model --output new
expect 2 "--model: found none with --data" --data data.jsonl --output new
expect 2 "--eval-split: found --eval-data too" --model model --data data.jsonl --eval-data data.jsonl --eval-split 0.2 --output new
[ -e new ] && fail "a refused run writes nothing"

finish
