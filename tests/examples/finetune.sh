#!/usr/bin/env bash
# Tries finetune as people use and misuse it: options, config files, broken inputs, outputs, signals, streams.
. "$(dirname "$0")/trial.sh"

fresh_model model
cp "$fixtures/peft_data.jsonl" data.jsonl
base=(--model model --data data.jsonl --threads 1)
# A run that fails leaves no output and nothing beside it.
refused() { # CODE TEXT ARGS…
    rm -rf new
    expect "$1" "$2" "${base[@]}" --output new "${@:3}"
    compgen -G 'new*' >/dev/null && fail "something was written: ${*:3}"
}
accepted() { # TEXT ARGS…
    rm -rf new
    expect 0 "$1" "${base[@]}" --output new --max-steps 2 "${@:2}"
    [ -s new/adapter_model.safetensors ] || [ -s new/model.safetensors ] || fail "nothing was written: ${*:2}"
}

# Help names every option that a run accepts, and its default.
expect 0 "--learning-rate FLOAT=0.0002" --help
for option in model data output eval-data method r lora-alpha lora-dropout target-modules exclude-modules \
    layers-to-transform rank-pattern alpha-pattern modules-to-save use-rslora init-lora-weights loraplus-lr-ratio bias \
    init-r target-r tinit tfinal delta-t beta1 beta2 orth-reg-weight \
    init-adapter base-dropout learning-rate lr-scheduler-type warmup-ratio warmup-steps num-train-epochs max-steps \
    per-device-train-batch-size per-device-eval-batch-size gradient-accumulation-steps max-seq-length adam-beta1 \
    adam-beta2 adam-epsilon weight-decay max-grad-norm gradient-checkpointing eval-steps logging-steps log-file seed \
    no-shuffle columns threads dtype config overwrite-output-dir eval-strategy early-stopping-patience \
    early-stopping-threshold load-best-model-at-end save-steps save-strategy save-total-limit resume logging-dir report-to \
    report-samples loss-watchdog packing group-by-length eval-split template separator; do
    grep -q -- "^  --$option\b" out || fail "--help lacks --$option"
done

# Unknown options, and values out of their ranges.
expect 2 "--model is required" --data data.jsonl --output new
refused 2 "unknown option --learning_rate; similar: --learning-rate" --learning_rate 1
refused 2 "unknown option --rr" --rr=4
refused 2 "found 'extra'" extra
refused 2 "--r" --r 4 --r 5
while read -r option value text; do
    refused 2 "$text" "$option" "$value"
done <<'LIST'
--r 0 --r: found '0', expected an integer from 1 to 1048576
--r -1 --r: found '-1'
--r 2.5 --r: found '2.5'
--r x --r: found 'x'
--r 99999999999999999999 --r: found '99999999999999999999'
--lora-dropout 1 --lora-dropout: found '1', expected a number from 0 to 0.999
--lora-dropout -0.1 --lora-dropout: found '-0.1'
--lora-dropout nan --lora-dropout: found 'nan'
--lora-alpha nan --lora-alpha: found 'nan', expected a number
--lora-alpha inf --lora-alpha: found 'inf'
--learning-rate nan --learning-rate: found 'nan', expected a number of 0 or more
--learning-rate -1 --learning-rate: found '-1'
--learning-rate inf --learning-rate: found 'inf'
--learning-rate 1e999 --learning-rate: found '1e999'
--lr-scheduler-type bogus --lr-scheduler-type: bogus not in
--method bogus --method: bogus not in {lora,dora,vera,adalora,ia3,lora-fa,full}
--method 1 --method: 1 not in
--bias bogus --bias: bogus not in
--init-lora-weights svd --init-lora-weights: init_lora_weights: found 'svd'
--base-dropout bogus --base-dropout: bogus not in
--per-device-train-batch-size 0 found '0', expected an integer from 1
--per-device-train-batch-size 99999999999 found '99999999999'
--per-device-eval-batch-size 0 found '0'
--gradient-accumulation-steps 0 found '0'
--warmup-ratio 1.5 expected a number from 0 to 1
--warmup-ratio nan found 'nan'
--warmup-steps -1 found '-1'
--num-train-epochs 0 found '0'
--num-train-epochs nan found 'nan'
--num-train-epochs 1e300 found '1e300'
--max-steps -1 found '-1'
--max-steps 1.5 found '1.5'
--adam-beta1 1 beta1: found 1.0
--adam-beta2 -1 found '-1'
--adam-epsilon nan found 'nan'
--weight-decay -1 found '-1'
--max-grad-norm -1 found '-1'
--max-grad-norm nan found 'nan'
--logging-steps 0 found '0'
--seed -1 --seed: found '-1'
--threads -1 found '-1'
--threads 100000 found '100000'
--columns bogus expected role=column
--columns foo=bar found the role 'foo'
--max-seq-length 1 found 1, expected 2 to 24
--max-seq-length 25 found 25, expected 2 to 24
--eval-steps 3 --eval-steps needs --eval-data
--eval-strategy epoch --eval-strategy needs --eval-data
--eval-strategy bogus bogus not in {steps,epoch}
--save-strategy bogus bogus not in {steps,epoch}
--early-stopping-patience 3 --early-stopping-patience needs --eval-data
--early-stopping-patience -1 found '-1'
--early-stopping-threshold nan found 'nan'
--save-total-limit 3 --save-total-limit needs --save-steps
--save-steps -1 found '-1'
--loss-watchdog bogus bogus not in {warn,stop,off}
--report-to wandb wandb not in {csv,tensorboard,html}
--report-samples -1 found '-1'
--resume checkpoint-3 --resume: found 'checkpoint-3', expected latest or a checkpoint in --output new, which has none
--loraplus-lr-ratio 0.5 ratio 0.5
--loraplus-lr-ratio nan found 'nan'
--target-modules bogus --target-modules: 'bogus' matches no linear layer
--target-modules c_attn,bogus --target-modules: 'bogus' matches no linear layer
--target-modules ( pattern '('
--exclude-modules bogus --exclude-modules: 'bogus' matches no linear layer
--exclude-modules c_attn no linear layer of the model matches
--layers-to-transform 7 '7' matches none of the layers 0 to 1
--layers-to-transform -1 found '-1'
--rank-pattern c_attn found 'c_attn', expected module=number
--rank-pattern c_attn=0 found 'c_attn=0'
--rank-pattern c_attn=4x found 'c_attn=4x'
--rank-pattern =4 found '=4'
--rank-pattern bogus=4 'bogus' matches no adapted layer
--alpha-pattern c_attn=nan found 'c_attn=nan'
--modules-to-save bogus modules_to_save
LIST
refused 2 "--load-best-model-at-end needs --eval-data" --load-best-model-at-end
refused 1 "nowhere/log.jsonl: cannot write" --log-file nowhere/log.jsonl
# Planned, and not there yet: refused, and not passed over.
for option in "--device cuda" "--adapter x"; do
    # shellcheck disable=SC2086
    refused 2 "unknown option ${option%% *}" $option
done
refused 2 "--bnb-4bit-use-double-quant: expected --quantize nf4 with it" --bnb-4bit-use-double-quant
# Options that contradict each other.
adapter=$fixtures/peft_lora
for option in "--method lora" "--r 4" "--lora-alpha 8" --use-rslora "--bias none" "--target-modules c_attn" \
    "--exclude-modules c_fc" "--layers-to-transform 0" "--rank-pattern c_attn=4" "--alpha-pattern c_attn=4" \
    "--init-lora-weights true" "--modules-to-save ln_f"; do
    # shellcheck disable=SC2086
    refused 2 "${option%% *}: the adapter of --init-adapter decides" --init-adapter "$adapter" $option
done
accepted "saved after 2 of 2" --init-adapter "$adapter" --lora-dropout 0.5
grep -q '"lora_dropout": 0.5' new/adapter_config.json || fail "--lora-dropout goes with --init-adapter"
for option in "--r 4" "--lora-dropout 0.1" "--bias all" "--loraplus-lr-ratio 16"; do
    # shellcheck disable=SC2086
    refused 2 "${option%% *}: has no meaning with --method full" --method full $option
done
for option in "--r 4" --use-rslora "--rank-pattern c_attn=4" "--alpha-pattern c_attn=4"; do
    # shellcheck disable=SC2086
    refused 2 "${option%% *}: has no meaning with --method adalora" --method adalora $option
done
for option in init-r target-r tinit tfinal delta-t beta1 beta2 orth-reg-weight; do
    refused 2 "--$option: has no meaning with --method lora" --$option 1
    refused 2 "--$option: the adapter of --init-adapter decides" --init-adapter "$fixtures/peft_adalora" --$option 1
done
for option in vera-dropout d-initial projection-prng-key feedforward-modules; do
    refused 2 "--$option: has no meaning with --method dora" --method dora --$option 0
    refused 2 "--$option: the adapter of --init-adapter decides" --init-adapter "$fixtures/peft_vera" --$option 0
done
for option in "--lora-alpha 4" "--lora-dropout 0.1" "--rank-pattern c_attn=4" "--exclude-modules c_fc" "--target-r 4"; do
    # shellcheck disable=SC2086
    refused 2 "${option%% *}: has no meaning with --method vera" --method vera $option
done
for option in "--r 4" "--bias all" "--layers-to-transform 0" "--d-initial 1" "--loraplus-lr-ratio 4" --lora-bias; do
    # shellcheck disable=SC2086
    refused 2 "${option%% *}: has no meaning with --method ia3" --method ia3 $option
done
refused 2 "'feedforward_modules': found 'c_fc', expected names of target_modules" --method ia3 --target-modules c_attn \
    --feedforward-modules c_fc
refused 2 "--method lora-fa: the adapter of --init-adapter is no LoRA" --init-adapter "$fixtures/peft_ia3" --method lora-fa
refused 2 "'transformer.wte' is an embedding, and lora_bias is for linear layers" --lora-bias --target-modules wte
refused 2 "--target-modules: 'wte' matches no linear layer of the model" --method vera --target-modules wte,c_attn
refused 2 "key 'tinit': found 3 with tfinal 0 of total_step 3" --method adalora --max-steps 3 --tinit 3
refused 2 "key 'target_r': found 5, expected at most init_r, 4" --method adalora --init-r 4 --target-r 5
refused 2 "key 'beta1': found 1" --method adalora --beta1 1
refused 2 "--init-lora-weights: found gaussian" --method adalora --init-lora-weights gaussian
accepted "saved after 2 of 2" --init-adapter "$fixtures/peft_adalora" --lora-dropout 0.5
grep -q '"total_step": 24' new/adapter_config.json || fail "total_step is that of --init-adapter"

# Every kind of run; its configuration repeats it.
weights() { cat "$1"/*model.safetensors | sha256sum; }
repeats() { # ARGS…
    accepted "saved after 2 of 2" "$@"
    rm -rf again
    expect 0 "saved after 2 of 2" --config new/finetune.toml --output again
    [ "$(weights new)" = "$(weights again)" ] || fail "finetune.toml gives other weights: $*"
    cmp -s <(grep -v '^output' new/finetune.toml) <(grep -v '^output' again/finetune.toml) ||
        fail "finetune.toml is not repeated: $*"
}
repeats
repeats --method dora --r 3 --lora-alpha 5.5 --use-rslora --bias all --target-modules all-linear --seed 18446744073709551615
repeats --target-modules '.*\.(c_attn|c_fc)' --rank-pattern 'h.0.attn.c_attn=2,c_attn=3' --alpha-pattern c_fc=1e-3
repeats --target-modules c_attn,c_proj --exclude-modules mlp.c_proj --layers-to-transform 0,1 --modules-to-save ln_f
repeats --init-adapter "$fixtures/peft_rsdora"
repeats --init-adapter "$fixtures/peft_lora" --method lora-fa
repeats --method lora-fa --init-lora-weights orthogonal --target-modules wte,c_attn
repeats --method vera # of rank 256
grep -q '"r": 256' new/adapter_config.json || fail "VeRA's rank is 256 unless given"
repeats --method vera --r 5 --d-initial 0.5 --projection-prng-key 3 --vera-dropout 0.25 --bias lora_only --target-modules all-linear
repeats --method ia3
repeats --method ia3 --target-modules c_attn,c_fc --feedforward-modules c_fc --modules-to-save ln_f
repeats --lora-bias --init-lora-weights false
repeats --method adalora --init-r 4 --target-r 2 --orth-reg-weight 0.1 --bias lora_only
repeats --method full --base-dropout none --gradient-checkpointing --no-shuffle --learning-rate 1e-5
repeats --init-lora-weights gaussian --lora-dropout 0.25 --loraplus-lr-ratio 16 --eval-data data.jsonl --eval-steps 1
odd="it's # \"odd\"; [1], x = \\2.jsonl"
cp data.jsonl "$odd"
base=(--model model --data "$odd" --threads 1)
repeats
fresh_model $'mo\xff\ndel'
base=(--model $'mo\xff\ndel' --data data.jsonl --threads 1)
accepted "saved after 2 of 2"
base=(--model model --data data.jsonl --threads 1)

# Config files: the command line wins, and what is not understood is refused by line.
config() { # CODE TEXT LINES
    printf "$3" >options.toml
    rm -rf new
    expect "$1" "$2" --config options.toml --model model --data data.jsonl --output new --max-steps 2
}
config 0 "saved" "# a comment\n\n; another\nr = 3  # rank\nuse-rslora = true\nbias='all'\ntarget-modules = [\"c_attn\", \"c_fc\"]\nthreads=1\r\n"
grep -q '"r": 3' new/adapter_config.json || fail "r of the config file"
grep -q '"use_rslora": true' new/adapter_config.json || fail "use-rslora of the config file"
printf 'r = 3\nmax-steps = 7\n' >options.toml
rm -rf new
expect 0 "saved after 1 of 1" --config options.toml "${base[@]}" --output new --max-steps 1 --r 5
grep -q '"r": 5' new/adapter_config.json || fail "the command line wins over the config file"
config 2 'options.toml: line 2: unknown option "lora_alpha"; similar: lora-alpha' 'r = 4\nlora_alpha = 4\n'
config 2 'line 1: unknown option "help"' 'help = true\n'
config 2 'line 1: unknown option "device"' 'device = "cuda"\n'
config 2 'line 1: found "[lora]", expected name = value' '[lora]\nr = 4\n'
config 2 'line 1: found "just text", expected name = value' 'just text\n'
config 2 'line 2: option "r" is given twice' 'r = 4\nr = 5\n'
config 2 'line 1: found no value for "r"' 'r =\n'
config 2 "--r: found 'four'" 'r = four\n'
config 1 'options.toml: line 1, column 23' 'target-modules=["c_attn\n'
config 1 'found object in a list' 'target-modules=[{}]\n'
config 2 'use-rslora' 'use-rslora = perhaps\n'
expect 2 nowhere.toml --config nowhere.toml "${base[@]}" --output new
rm -rf new

# Model directories that are not whole.
broken() { # CODE TEXT [ARGS…]
    rm -rf new
    expect "$1" "$2" --model broken --data data.jsonl --threads 1 --output new "${@:3}"
    compgen -G 'new*' >/dev/null && fail "something was written: $2"
}
rm -rf broken && broken 1 "broken/config.json: cannot open: No such file"
fresh_model broken && rm broken/config.json && broken 1 "broken/config.json: cannot open: No such file"
fresh_model broken && rm broken/model.safetensors &&
    broken 1 "broken: found neither model.safetensors nor model.safetensors.index.json"
echo text >broken.txt && expect 1 "broken.txt/config.json" --model broken.txt --data data.jsonl --output new
fresh_model broken
size=$(stat -c %s broken/model.safetensors) header=$(header_bytes broken/model.safetensors)
for bytes in 0 4 8 9 100 $((7 + header)) $((8 + header)) $((108 + header)) $((size - 1)); do
    fresh_model broken && truncate -s "$bytes" broken/model.safetensors && broken 1 "broken/model.safetensors: "
done
fresh_model broken && printf x >>broken/model.safetensors && broken 1 "found 64897 bytes of data, expected 64896"
bytes_at() { printf "$2" | dd of="$3" bs=1 seek="$1" conv=notrunc status=none; } # OFFSET BYTES FILE
fresh_model broken && bytes_at 0 '\xff\xff\xff\xff\xff\xff\xff\x7f' broken/model.safetensors &&
    broken 1 "found a header length of 9223372036854775807 bytes"
fresh_model broken && bytes_at 0 '\0\0\0\0\0\0\0\0' broken/model.safetensors && broken 1 "broken/model.safetensors: "
while IFS='|' read -r from to text; do
    fresh_model broken && sed -i "s|$from|$to|" broken/model.safetensors && broken 1 "$text"
done <<'LIST'
"F32"|"I32"|c_attn.bias': found type I32, expected F32, F16, BF16 or F64
"F32"|"F99"|found type "F99", which is not supported
\[48,24\]|[24,48]|wte.weight': found shape [24, 48], expected [48, 24]
\[0,288\]|[1,288]|found 287 bytes, expected 288
ln_f.weight|ln_f.wright|found no tensor "transformer.ln_f.weight"; similar: transformer.ln_f.wright
LIST
while IFS='|' read -r from to text; do
    fresh_model broken && sed -i "s|$from|$to|" broken/config.json && broken 1 "$text"
done <<'LIST'
"n_layer": 2|"n_layer": 3|found no tensor "transformer.h.2.ln_1.weight"
"n_layer": 2|"n_layer": 1|'transformer.h.1.attn.c_attn.bias' is unexpected
"n_head": 2|"n_head": 5|broken/config.json: key 'n_head': found 5, expected a divisor
"n_head": 2|"n_head": "two"|key 'n_head': found "two" (string), expected an integer
"vocab_size": 48|"vocab_size": 47|found shape [48, 24], expected [47, 24]
"model_type": "gpt2"|"model_type": "llama"|key 'model_type': found "llama", expected "gpt2"
gelu_new|swish|key 'activation_function': found "swish"
"resid_pdrop": 0.0|"resid_pdrop": 1.0|key 'resid_pdrop': found 1.0
{|{{|broken/config.json: line 1
LIST

# Adapter directories that are not whole.
broken_adapter() { # TEXT
    rm -rf new
    expect 1 "$1" "${base[@]}" --output new --init-adapter broken
    compgen -G 'new*' >/dev/null && fail "something was written: $1"
}
rm -rf broken && broken_adapter "broken/adapter_config.json: cannot open"
fresh peft_lora broken && rm broken/adapter_model.safetensors && broken_adapter "adapter_model.safetensors: cannot open"
for bytes in 0 9 600; do
    fresh peft_lora broken && truncate -s $bytes broken/adapter_model.safetensors &&
        broken_adapter "broken/adapter_model.safetensors: "
done
while IFS='|' read -r file from to text; do
    fresh peft_lora broken && sed -i "s|$from|$to|" broken/"$file" && broken_adapter "$text"
done <<'LIST'
adapter_config.json|"r": 4|"r": 8|c_attn.lora_A.weight': found shape [4, 24], expected [8, 24]
adapter_config.json|"r": 4|"r": 0|adapter_config.json: key 'r': found 0
adapter_config.json|"LORA"|"LOHA"|key 'peft_type': found "LOHA", expected "LORA", "VERA", "IA3", "ADALORA"
adapter_config.json|"LORA"|"ADALORA"|key 'total_step': found no such key
adapter_config.json|"c_attn"|"q_proj"|no linear layer of the model matches
adapter_config.json|"use_dora": false|"use_dora": true|lora_magnitude_vector": not in the file
adapter_config.json|"layers_to_transform": null|"layers_to_transform": [1]|h.0.attn.c_attn.lora_A.weight' is unexpected
adapter_config.json|"target_parameters": null|"target_parameters": ["x"]|key 'target_parameters': found a list
adapter_model.safetensors|F32|I32|found type I32, expected F32
adapter_model.safetensors|lora_A|lora_Z|c_attn.lora_A.weight": not in the file
LIST

# Data that cannot be meant.
data() { # TEXT CONTENT [NAME]
    local file=${3:-bad.jsonl}
    printf "$2" >"$file"
    rm -rf new
    expect 1 "$1" --model model --data "$file" --threads 1 --output new
    compgen -G 'new*' >/dev/null && fail "something was written: $2"
}
data "bad.jsonl: line 1, column 18" '{"input_ids": [1,2'
data "bad.jsonl: line 2, record 2: key 'input_ids': found 48 (number) at index 1, expected token ids from 0 to 47" \
    '{"input_ids": [1, 2]}\n{"input_ids": [1, 48]}\n'
data "found 25 tokens, expected at most 24" "{\"input_ids\": [$(seq -s, 1 25)]}"
data "found -1 (number) at index 1" '{"input_ids": [1, -1]}'
data "key 'labels': found 1 labels, expected 2" '{"input_ids": [1, 2], "labels": [1]}'
data "all labels are masked" '{"input_ids": [1, 2], "labels": [-100, -100]}'
data "all labels are masked" '{"prompt": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "completion": "B"}'
data "line 1: found the byte 0xff at byte offset 13, expected UTF-8" '{"text": "ABC\xff"}'
data 'the character "!" at byte 3' '{"text": "ABC!"}'
data 'found the keys "foo"' '{"foo": 1}'
data "found an empty file" ''
data "expected .json, .jsonl" 'A,B' bad.xml
data "bad.json: line 1: found ']', expected record 2" '[{"text": "ABC"},]' bad.json
expect 1 "nowhere.jsonl: cannot open" --model model --data nowhere.jsonl --output new
printf '{"text": "ABC"}' >text.jsonl
expect 1 "found no tokenizer, expected one of" --model "$fixtures/peft_base" --data text.jsonl --output new

# Numbers that are none: three steps, no update, nothing saved, and the tensor is named.
fresh_model broken && bytes_at $((8 + header + 60288 + 40)) '\x00\x00\xc0\x7f' broken/model.safetensors
broken 1 "transformer.wte.weight: value 10 of shape [48, 24] is not finite"
[ "$(grep -c 'skipped: not finite' err)" -le 2 ] || fail "more than two skipped steps before the end"
broken 1 "transformer.wte.weight: value 10" --method full
refused 1 "lora_A.weight: value 0 of shape [8, 24] is not finite" --learning-rate 1e38 --max-steps 1 --weight-decay 1e38 --lr-scheduler-type constant

# Places to write.
mkdir full && touch full/file
expect 2 "--output: 'full' exists and is not empty" "${base[@]}" --output full
[ -e full/file ] || fail "an output directory that is not empty is left alone"
expect 0 "saved" "${base[@]}" --max-steps 1 --output full --overwrite-output-dir
[ ! -e full/file ] && [ -e full/adapter_config.json ] || fail "--overwrite-output-dir replaces the directory"
expect 0 "saved" "${base[@]}" --max-steps 1 --init-adapter full --output full --overwrite-output-dir
touch a_file
expect 2 "'a_file' exists" "${base[@]}" --output a_file
expect 1 "a_file: found a file" "${base[@]}" --output a_file --overwrite-output-dir
expect 1 "a_file" "${base[@]}" --output a_file/new
expect 1 "/proc/new" "${base[@]}" --output /proc/new
expect 2 "--output: found an empty name" "${base[@]}" --output ""
expect 2 "it holds --model 'model'" "${base[@]}" --output model --overwrite-output-dir
expect 2 "it holds --model 'model'" "${base[@]}" --output . --overwrite-output-dir
mkdir run && cp data.jsonl run/
expect 2 "it holds --data 'run/data.jsonl'" --model model --data run/data.jsonl --output run/ --overwrite-output-dir
expect 2 "it holds --log-file 'run/log.jsonl'" "${base[@]}" --log-file run/log.jsonl --output run --overwrite-output-dir
[ -e model/config.json ] && [ -e run/data.jsonl ] || fail "inputs are left alone"
grep -q 'step 1/' err && fail "an output that cannot be written is known before training"
rm -rf new
(ulimit -f 8 && exec "$program" "${base[@]}" --max-steps 1 --method full --output new) >out 2>err
judge 1 $? "model.safetensors: cannot write: File too large" "a full disk"
compgen -G 'new*' >/dev/null && fail "half of an output was left"
rm -rf new
(ulimit -f 0 && exec "$program" "${base[@]}" --max-steps 1 --output new) >/dev/null 2>/dev/null
[ $? = 1 ] || fail "a full disk, for the output too"
expect 1 "--log-file: not everything could be written" "${base[@]}" --max-steps 1 --log-file /dev/full --output new
[ -e new/adapter_config.json ] || fail "a log that cannot be written does not cost the adapter"

# Streams: plain lines in files, a live line on terminals, and messages that nobody hears cost nothing.
rm -rf new
"$program" "${base[@]}" --max-steps 30 --output new >out 2>err
grep -q $'[\r\033]' out err && fail "control characters outside of a terminal"
if script -qec true /dev/null >/dev/null 2>&1 </dev/null; then # there is a terminal to be had
    rm -rf new
    script -qec "'$program' ${base[*]} --max-steps 30 --output new" /dev/null >out 2>err </dev/null
    judge 0 $? $'\r\033[Kstep 30/30' "on a terminal"
fi
for streams in '>&-' '>/dev/full' '2>&-' '2>/dev/full' '<&-' '>&- 2>&- <&-'; do
    rm -rf new
    eval "\"\$program\" \"\${base[@]}\" --max-steps 2 --output new >out 2>err $streams"
    code=$?
    case $streams in
    '>'*) [ $code = 1 ] || fail "exit code $code for $streams" ;;
    *) [ $code = 0 ] || fail "exit code $code for $streams" ;;
    esac
    rm -rf again
    expect 0 "saved" "${base[@]}" --init-adapter new --max-steps 1 --output again
done
(trap '' PIPE && "$program" "${base[@]}" --max-steps 2 --output again --overwrite-output-dir 2>err) | true

# Reports, in the output and while training; evaluations by epochs; the best model; an early end.
rm -rf new runs
expect 0 "saved the best model, of step" "${base[@]}" --output new --eval-data data.jsonl --eval-strategy epoch \
    --num-train-epochs 3 --save-strategy epoch --save-total-limit 1 --load-best-model-at-end --logging-steps 2 \
    --report-to csv,tensorboard,html --report-samples 2 --logging-dir runs --log-file log.jsonl
[ "$(grep -c eval_loss new/metrics.jsonl)" = 3 ] || fail "an evaluation an epoch"
cmp -s log.jsonl new/metrics.jsonl || fail "--log-file is metrics.jsonl"
cmp -s runs/events.out.tfevents.* new/events.out.tfevents.finetune || fail "--logging-dir has the events"
[ "$(wc -l <new/metrics.csv)" -gt 15 ] || fail "metrics.csv has a line a step"
[ "$(grep -c '<svg' new/report.html)" = 4 ] && grep -q '<h2>Samples' new/report.html || fail "report.html"
rm -rf new
expect 0 "stopped early, saved after 3 of 30" "${base[@]}" --output new --eval-data data.jsonl --max-steps 30 \
    --eval-steps 1 --early-stopping-patience 2 --early-stopping-threshold 100
compgen -G 'new/checkpoint-*' >/dev/null && fail "no checkpoints unless asked for"
rm -rf new
diverging=(--method full --max-steps 70 --learning-rate 1 --warmup-steps 60 --max-grad-norm 0)
expect 0 "warning: the loss diverges" "${base[@]}" --output new "${diverging[@]}"
refused 1 "the loss diverges" "${diverging[@]}" --loss-watchdog stop

# Ctrl-C: the first ends the run after the step, with an adapter that loads; the second ends it at once.
interrupted() { # DATA ARGS…: starts a long run and waits for its step 1, or with DATA many for its first lines
    rm -rf new
    : >err
    "$program" --model model --threads 1 --num-train-epochs 100000 --output new "$@" >out 2>err &
    run=$!
}
interrupted --data data.jsonl
wait_for 'step 1/'
kill -INT $run
wait $run
judge 130 $? "interrupted, saved after" "Ctrl-C"
rm -rf again
expect 0 "saved" "${base[@]}" --init-adapter new --max-steps 1 --output again
for ((i = 0; i < 300; ++i)); do cat data.jsonl; done >long.jsonl
interrupted --data long.jsonl --per-device-train-batch-size 100 --gradient-accumulation-steps 1000
wait_for 'supervised, '
sleep 0.3
kill -INT $run
sleep 0.1
kill -INT $run
wait $run
[ $? = 130 ] && ! compgen -G 'new*' >/dev/null || fail "a second Ctrl-C"

finish
