#!/usr/bin/env bash
# Tries combine: a weighted sum of adapters is the adapter that it must be.
. "$(dirname "$0")/trial.sh"

for option in model quantize adapter weights combination-type svd-rank density majority-sign-method seed output overwrite-output-dir config; do
    "$program" --help | grep -q -- "^  --$option\b" || fail "--help lacks --$option"
done

fresh_model model
rslora=$(loss "$fixtures/peft_rslora_patterns") lora=$(loss "$fixtures/peft_lora")
[ "$rslora" != "$lora" ] || fail "the adapters do the same"

one=(--adapter "a=$fixtures/peft_rslora_patterns")
two=("${one[@]}" --adapter "b=$fixtures/peft_lora")
expect 0 "combined 2 adapters by cat" --model model "${two[@]}" --weights 1,0 --combination-type cat --output cat
[ "$(loss cat)" = "$rslora" ] || fail "1 and 0 are not the first adapter"
cmp -s model/char_vocab.json cat/char_vocab.json || fail "the tokenizer is not there"
grep -q '"use_rslora": false' cat/adapter_config.json || fail "the scale of rsLoRA is left"
expect 0 "combined" --model model "${two[@]}" --weights -0.5,1 --combination-type cat --output half
expect 0 "combined" --model model --adapter "c=half" --adapter "a=$fixtures/peft_rslora_patterns" --weights 1,0.5 --svd-rank 24 --output back
[ "$(loss back)" = "$lora" ] || fail "half taken away and put back is not the same"
expect 0 "combined 1 adapters by svd" --model model --adapter "d=$fixtures/peft_dora" --svd-rank 24 --output dora
[ "$(loss dora)" = "$(loss "$fixtures/peft_dora")" ] || fail "DoRA became another adapter"
for type in ties dare_linear dare_ties magnitude_prune; do
    expect 0 "by ${type}_svd" --model model "${two[@]}" --combination-type "${type}_svd" --svd-rank 4 --density 0.5 --seed 3 --output "$type"
    loss "$type" >loss
done
expect 2 "ranks differ" --model model "${two[@]}" --combination-type linear --output x
expect 2 "DoRA" --model model --adapter "d=$fixtures/peft_dora" --combination-type cat --output x
expect 2 "density: ties needs one" --model model "${two[@]}" --combination-type ties --output x
expect 2 "1 weights for 2" --model model "${two[@]}" --weights 1 --output x
expect 2 "expected name=directory" --model model --adapter "$fixtures/peft_lora" --output x
expect 2 "--combination-type" --model model "${two[@]}" --combination-type sum --output x
expect 2 "holds --adapter" --model model --adapter a=half --output half --overwrite-output-dir
expect 2 "bias" --model model --adapter "a=$fixtures/peft_bias_all" --output x
expect 1 "absent" --model model --adapter a=absent --output x
[ -e x ] && fail "something was written for an error"

finish
