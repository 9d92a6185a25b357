#!/usr/bin/env bash
# Tries merge: the merged model alone is the model with its adapter.
. "$(dirname "$0")/trial.sh"
evaluate=$(dirname "$program")/evaluate

for option in model quantize adapter dtype output overwrite-output-dir config; do
    "$program" --help | grep -q -- "^  --$option\b" || fail "--help lacks --$option"
done

fresh_model model
for adapter in peft_rsdora peft_lora_bias peft_modules_to_save; do
    expect 0 "merged" --model model --adapter "$fixtures/$adapter" --output "merged_$adapter"
    "$evaluate" --model model --adapter "$fixtures/$adapter" --data "$fixtures/peft_data.jsonl" >adapted 2>err || fail "evaluate"
    "$evaluate" --model "merged_$adapter" --data "$fixtures/peft_data.jsonl" >merged 2>err || fail "evaluate the merged model"
    "$evaluate" --model model --data "$fixtures/peft_data.jsonl" >plain 2>err || fail "evaluate the plain model"
    # The losses, to five digits after the point.
    [ "$(grep -o 'loss [0-9]*\.[0-9]\{5\}' adapted)" = "$(grep -o 'loss [0-9]*\.[0-9]\{5\}' merged)" ] ||
        fail "$adapter: $(cat adapted) became $(cat merged)"
    cmp -s plain merged && fail "$adapter changed nothing"
    cmp -s model/char_vocab.json "merged_$adapter/char_vocab.json" || fail "the tokenizer is not there"
done

# The template of the adapter goes with it, and evaluate uses it as it would the adapter's.
fresh peft_lora_bias templated
echo '{"prompt_no_input": "a {instruction} b"}' >templated/template.json
echo '{"instruction": "ab", "output": "ba"}' >say.jsonl
printf 'no {instruction}' >other.txt
expect 0 "merged" --model model --adapter templated --output merged_templated
cmp -s templated/template.json merged_templated/template.json || fail "the template is not there"
"$evaluate" --model model --adapter templated --data say.jsonl >adapted 2>err || fail "evaluate"
"$evaluate" --model merged_templated --data say.jsonl >merged 2>err || fail "evaluate the merged model"
"$evaluate" --model merged_templated --template other.txt --data say.jsonl >plain 2>err || fail "evaluate with another template"
[ "$(grep -o 'loss [0-9]*\.[0-9]\{5\}' adapted)" = "$(grep -o 'loss [0-9]*\.[0-9]\{5\}' merged)" ] || fail "another loss: $(cat merged)"
cmp -s plain merged && fail "the template has no say"

expect 2 "exists and is not empty" --model model --adapter "$fixtures/peft_lora_bias" --output merged_peft_rsdora
expect 0 "merged" --model model --adapter "$fixtures/peft_lora_bias" --output merged_peft_rsdora --overwrite-output-dir
expect 2 "holds --model" --model model --adapter "$fixtures/peft_lora_bias" --output . --overwrite-output-dir
expect 2 "--adapter is required" --model model --output x
expect 1 "absent" --model model --adapter absent --output x
[ -e x ] && fail "something was written for an error"

# In a type of its own: the rounding is told, Transformers' config says the type, and from NF4 all becomes dense.
expect 0 "largest rounding error" --model model --adapter "$fixtures/peft_lora" --output bf16 --dtype bf16
grep -q '"dtype": "bfloat16"' bf16/config.json || fail "the config does not say bfloat16"
[ "$(stat -c %s bf16/model.safetensors)" -lt "$(($(stat -c %s model/model.safetensors) * 2 / 3))" ] || fail "not 16 bits"
"$(dirname "$program")/quantize" --model model --output nf4 >out 2>err || fail "quantize"
expect 0 "merged" --model nf4 --adapter "$fixtures/peft_lora" --output from_nf4 --dtype fp32
grep -q quantization_config from_nf4/config.json && fail "the config says that it is quantized"
"$evaluate" --model nf4 --adapter "$fixtures/peft_lora" --data "$fixtures/peft_data.jsonl" >adapted 2>err || fail "evaluate"
"$evaluate" --model from_nf4 --data "$fixtures/peft_data.jsonl" >merged 2>err || fail "evaluate the merged model"
[ "$(grep -o 'loss [0-9]*\.[0-9]\{5\}' adapted)" = "$(grep -o 'loss [0-9]*\.[0-9]\{5\}' merged)" ] || fail "another loss: $(cat merged)"
expect 0 "merged" --model model --quantize nf4 --adapter "$fixtures/peft_lora" --output quantized --dtype fp32
cmp -s from_nf4/model.safetensors quantized/model.safetensors || fail "another base when it is quantized while it is loaded"
expect 2 "--dtype" --model model --adapter "$fixtures/peft_lora" --output x --dtype int8

# A factor that is not finite: nothing is written.
fresh peft_lora_bias broken
size=$(header_bytes broken/adapter_model.safetensors)
printf '\0\0\300\177' | dd of=broken/adapter_model.safetensors bs=1 seek=$((8 + size)) conv=notrunc 2>/dev/null
expect 1 "not finite" --model model --adapter broken --output x
[ -e x ] && fail "something was written for an error"

finish
