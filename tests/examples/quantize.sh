#!/usr/bin/env bash
# Tries quantize: what it writes is what Transformers wrote with bitsandbytes, and evaluate reads it.
. "$(dirname "$0")/trial.sh"
evaluate=$(dirname "$program")/evaluate

for option in model output bnb-4bit-use-double-quant bnb-4bit-compute-dtype dtype overwrite-output-dir threads config; do
    "$program" --help | grep -q -- "^  --$option\b" || fail "--help lacks --$option"
done

# The same file.
expect 0 "quantized 4 layers" --model "$fixtures/quant_gpt2" --output plain
cmp plain/model.safetensors "$fixtures/quant_gpt2_nf4/model.safetensors" || fail "another model.safetensors"
grep -v '"transformers_version"' plain/config.json | cmp - <(grep -v '"transformers_version"' "$fixtures/quant_gpt2_nf4/config.json") ||
    fail "another config.json"

expect 0 "quantized 4 layers" --model "$fixtures/quant_gpt2" --output bf16 --dtype bfloat16
cmp bf16/model.safetensors "$fixtures/quant_gpt2_bf16/model.safetensors" || fail "another model.safetensors in bf16"
grep -v '"transformers_version"' bf16/config.json | cmp - <(grep -v '"transformers_version"' "$fixtures/quant_gpt2_bf16/config.json") ||
    fail "another config.json in bf16"
# And wider than it was.
expect 0 "quantized" --model "$fixtures/gpt2_bf16" --output wide --dtype float32
grep -q '"dtype": "float32"' wide/config.json || fail "the config does not say float32"
grep -aq '"dtype": "bfloat16"\|"BF16"' wide/model.safetensors && fail "something in it is bf16"
expect 0 "quantized" --model "$fixtures/gpt2_bf16" --output narrow
grep -aq '"BF16"' narrow/model.safetensors || fail "without --dtype the table is not as it was"
expect 0 "quantized" --model "$fixtures/quant_gpt2" --output nested --bnb-4bit-use-double-quant --bnb-4bit-compute-dtype bfloat16 --threads 1
grep -q '"bnb_4bit_use_double_quant": true' nested/config.json || fail "the config does not say double"
grep -q '"bnb_4bit_compute_dtype": "bfloat16"' nested/config.json || fail "the config does not say bfloat16"

# The same logits as from what Transformers wrote; nearly the same loss as before.
echo '[[1, 2, 3, 4, 5, 6, 7]]' >tokens.json
for model in plain "$fixtures/quant_gpt2_nf4"; do
    "$evaluate" --model "$model" --tokens tokens.json --logits "$(basename "$model").safetensors" >out 2>err || fail "evaluate $model"
done
cmp plain.safetensors quant_gpt2_nf4.safetensors || fail "other logits"
"$evaluate" --model "$fixtures/quant_gpt2" --quantize nf4 --tokens tokens.json --logits loaded.safetensors >out 2>err || fail "evaluate --quantize"
cmp plain.safetensors loaded.safetensors || fail "other logits when it is quantized while it is loaded"
"$evaluate" --model nested --dtype bf16 --tokens tokens.json --logits nested.safetensors >out 2>err || fail "evaluate --dtype bf16"
fresh_model model
expect 0 "quantized" --model model --output quantized
cmp -s model/char_vocab.json quantized/char_vocab.json || fail "the tokenizer is not there"
for model in model quantized; do
    "$evaluate" --model "$model" --data "$fixtures/peft_data.jsonl" >"$model.out" 2>err || fail "evaluate $model"
done
cmp -s model.out quantized.out && fail "quantization changed nothing"
awk '{ match($0, /loss [0-9.]+/); loss[NR] = substr($0, RSTART + 5, RLENGTH - 5) } END { exit !(loss[1] / loss[2] > 0.9 && loss[1] / loss[2] < 1.1) }' \
    model.out quantized.out || fail "another model: $(cat model.out quantized.out)"

# QLoRA: the adapter trains over the quantized model, and works with it.
finetune=$(dirname "$program")/finetune
"$finetune" --model model --quantize nf4 --bnb-4bit-use-double-quant --data "$fixtures/peft_data.jsonl" --output adapter --max-steps 5 >out 2>err ||
    fail "finetune --quantize"
"$evaluate" --model model --quantize nf4 --adapter adapter --data "$fixtures/peft_data.jsonl" >out 2>err || fail "evaluate the adapter"
"$finetune" --model model --bnb-4bit-use-double-quant --data "$fixtures/peft_data.jsonl" --output x >out 2>err
judge 2 $? "expected --quantize nf4" finetune
"$finetune" --model model --quantize nf4 --method full --data "$fixtures/peft_data.jsonl" --output x >out 2>err
judge 2 $? "--method full" finetune

expect 2 "quantized already" --model plain --output x
expect 2 "exists and is not empty" --model model --output plain
expect 2 "holds --model" --model model --output . --overwrite-output-dir
expect 2 "--dtype" --model model --output x --dtype float16
expect 2 "--bnb-4bit-compute-dtype" --model model --output x --bnb-4bit-compute-dtype fp8
expect 2 "--output is required" --model model
expect 1 "absent" --model absent --output x
[ -e x ] && fail "something was written for an error"

finish
