#!/usr/bin/env bash
# Tries convert_adapter: what it writes is plain LoRA that does the same.
. "$(dirname "$0")/trial.sh"

for option in model quantize adapter rank energy bake-rslora output overwrite-output-dir config; do
    "$program" --help | grep -q -- "^  --$option\b" || fail "--help lacks --$option"
done

fresh_model model
for adapter in peft_rsdora peft_vera peft_ia3 peft_modules_to_save; do
    expect 0 "converted" --model model --adapter "$fixtures/$adapter" --rank 24 --output "full_$adapter"
    [ "$(loss "full_$adapter")" = "$(loss "$fixtures/$adapter")" ] || fail "$adapter: another loss"
    grep -q '"peft_type": "LORA"' "full_$adapter/adapter_config.json" || fail "$adapter is no LoRA"
    grep -q '"use_dora": false' "full_$adapter/adapter_config.json" || fail "$adapter is still DoRA"
done
cmp -s model/char_vocab.json full_peft_vera/char_vocab.json || fail "the tokenizer is not there"
expect 0 "largest error" --model model --adapter "$fixtures/peft_rsdora" --energy 0.5 --output half
grep -q 'c_attn: rank [0-9]*, error [1-9]' out || fail "no error of a layer"

expect 0 "converted" --model model --adapter "$fixtures/peft_rslora_patterns" --bake-rslora --output baked
[ "$(loss baked)" = "$(loss "$fixtures/peft_rslora_patterns")" ] || fail "the baked adapter does something else"
cmp -s baked/adapter_model.safetensors "$fixtures/peft_rslora_patterns/adapter_model.safetensors" || fail "other factors"
grep -q '"use_rslora": false' baked/adapter_config.json || fail "use_rslora is left"

expect 2 "no use_rslora" --model model --adapter "$fixtures/peft_lora" --bake-rslora --output x
expect 2 "expected one of --rank" --model model --adapter "$fixtures/peft_lora" --output x
expect 2 "expected one of --rank" --model model --adapter "$fixtures/peft_lora" --rank 2 --energy 0.5 --output x
expect 2 "--energy" --model model --adapter "$fixtures/peft_lora" --energy 2 --output x
expect 2 "holds --adapter" --model model --adapter half --rank 2 --output half --overwrite-output-dir
expect 1 "absent" --model model --adapter absent --rank 2 --output x
[ -e x ] && fail "something was written for an error"

finish
