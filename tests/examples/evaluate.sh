#!/usr/bin/env bash
# Tries evaluate as people use and misuse it: data, token lists, adapters, outputs, streams.
. "$(dirname "$0")/trial.sh"

fresh_model model
cp "$fixtures/peft_data.jsonl" data.jsonl
for option in model adapter threads dtype data tokens logits per-device-eval-batch-size bleu max-new-tokens max-seq-length config; do
    "$program" --help | grep -q -- "^  --$option\b" || fail "--help lacks --$option"
done

# Loss and perplexity, the same for any size of batch.
expect 0 "rows 80  loss 4." --model model --data data.jsonl
cp out first
expect 0 "$(cat first)" --model model --data data.jsonl --per-device-eval-batch-size 80 --threads 2
expect 0 "rows 80  loss 4." --model model --data data.jsonl --dtype bf16
cmp -s out first && fail "bf16 rounds"
expect 0 "rows 80  loss 4." --model model --data data.jsonl --adapter "$fixtures/peft_dora"
cmp -s out first && fail "the adapter changes the loss"
printf '{"text": "ABC"}' >text.jsonl
expect 0 "rows 1  loss" --model model --data text.jsonl
printf 'model = "model"\ndata = "text.jsonl"\n' >options.toml
expect 0 "rows 1  loss" --config options.toml

# BLEU of the answers: the rows of one prompt are references of one answer.
printf '{"prompt": "AB", "completion": "CD EF GH"}\n{"prompt": "AB", "completion": "Ab"}\n{"prompt": "BA", "completion": "Ba."}\n' >asked.jsonl
expect 0 "BLEU " --model model --data asked.jsonl --bleu --max-new-tokens 8
expect 2 "--bleu needs --data" --model model --bleu --tokens tokens.json --logits logits.safetensors

expect 2 "--model is required" --data data.jsonl
expect 2 "give either --data FILE, or --tokens FILE with --logits FILE" --model model
expect 2 "give either --data FILE" --model model --tokens tokens.json
expect 2 "give either --data FILE" --model model --data data.jsonl --tokens tokens.json --logits logits.safetensors
expect 2 "unknown option --batch-size" --model model --data data.jsonl --batch-size 4
expect 2 "unknown option --device" --model model --data data.jsonl --device cuda
expect 2 "--dtype: fp16 not in {fp32,bf16}" --model model --data data.jsonl --dtype fp16
expect 2 "found '0', expected an integer from 1" --model model --data data.jsonl --per-device-eval-batch-size 0
expect 2 "found 25, expected 2 to 24" --model model --data data.jsonl --max-seq-length 25
expect 1 "nowhere/config.json: cannot open" --model nowhere --data data.jsonl
expect 1 "nowhere/adapter_config.json: cannot open" --model model --data data.jsonl --adapter nowhere
printf '{"input_ids": [1, 48]}' >bad.jsonl
expect 1 "bad.jsonl: line 1, record 1: key 'input_ids': found 48" --model model --data bad.jsonl
fresh_model broken
printf '\x00\x00\xc0\x7f' | dd of=broken/model.safetensors bs=1 seek=$((8 + $(header_bytes broken/model.safetensors) + 60288)) \
    conv=notrunc status=none
expect 1 "transformer.wte.weight: value 0 of shape [48, 24] is not finite" --model broken --data data.jsonl

# Logits of given tokens.
tokens() { # CODE TEXT JSON
    printf "$3" >tokens.json
    rm -f logits.safetensors
    expect "$1" "$2" --model model --tokens tokens.json --logits logits.safetensors
    [ "$1" = 0 ] || ! compgen -G 'logits*' >/dev/null || fail "something was written: $3"
}
tokens 0 "logits of 2 lists of tokens written to logits.safetensors" '[[1, 2, 3], [4]]'
grep -q '"logits.0":{"dtype":"F32","shape":\[3,48\]' logits.safetensors || fail "logits.0 is F32 of shape [3, 48]"
grep -q '"logits.1":{"dtype":"F32","shape":\[1,48\]' logits.safetensors || fail "logits.1 is F32 of shape [1, 48]"
tokens 1 "tokens.json: found an object, expected a list of lists" '{"a": 1}'
tokens 1 "found 1 (number) as list 0" '[1, 2]'
tokens 1 "found 0 ids in list 0" '[[]]'
tokens 1 "found 25 ids in list 1, expected a list of lists of token ids: 1 to 24 numbers from 0 to 47" \
    "[[1], [$(seq -s, 1 25)]]"
for id in 48 -1 1.5 '"a"' null 18446744073709551615 99999999999999999999 '[1]'; do
    tokens 1 "in list 0, expected" "[[1, $id]]"
done
tokens 1 "tokens.json: line 1, column 5" '[[1,2'
tokens 1 "tokens.json: line 1" ''
expect 1 "nowhere.json: cannot open" --model model --tokens nowhere.json --logits logits.safetensors
printf '[[1]]' >tokens.json
expect 1 "model: cannot write: found a directory" --model model --tokens tokens.json --logits model
expect 1 "nowhere/logits" --model model --tokens tokens.json --logits nowhere/logits.safetensors
expect 1 "/dev/full: cannot write: found a special file" --model model --tokens tokens.json --logits /dev/full
(ulimit -f 0 && exec "$program" --model model --tokens tokens.json --logits logits.safetensors) >out 2>/dev/null
[ $? = 1 ] && ! compgen -G 'logits*' >/dev/null || fail "a full disk"

"$program" --model model --data data.jsonl >/dev/full 2>err
judge 1 $? "standard output: not everything could be written" "a full disk for standard output"
"$program" --model model --data data.jsonl >&- 2>err
judge 1 $? "standard output: not everything could be written" "a closed standard output"
"$program" --help >/dev/full 2>err
judge 1 $? "standard output: not everything could be written" "--help to a full disk"

finish
