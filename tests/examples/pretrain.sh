#!/usr/bin/env bash
# Tries pretrain as people use and misuse it: a tiny model learns a small text, and generate opens what it wrote.
. "$(dirname "$0")/trial.sh"

for option in data output overwrite-output-dir eval-data threads vocab-size n-layer n-embd n-head n-positions position-init \
    dropout learning-rate lr-scheduler-type warmup-ratio warmup-steps num-train-epochs max-steps \
    per-device-train-batch-size gradient-accumulation-steps adam-beta1 adam-beta2 adam-epsilon weight-decay max-grad-norm \
    logging-steps seed config; do
    "$program" --help | grep -q -- "^  --$option\b" || fail "--help lacks --$option"
done

# 100 KB of sentences that a tiny model can learn, in documents.
awk 'BEGIN {
    split("Anna Ben Clara David Emma Felix Greta Hugo", name); split("red blue green yellow black white", colour)
    split("ball lamp book basket kite drum cup hat key rope", object); srand(1)
    while (size < 100000) {
        line = name[int(rand() * 8) + 1] " has a " colour[int(rand() * 6) + 1] " " object[int(rand() * 10) + 1] ".\n"
        if (++lines % 6 == 0) line = line "<|endoftext|>"
        size += length(line); printf "%s", line
    }
}' >text.txt
head -c 3000 text.txt | sed 's/<[^>]*>*$//' >eval.txt
tiny="--data text.txt --n-layer 1 --n-embd 32 --n-positions 64 --vocab-size 320 --learning-rate 0.01"

# shellcheck disable=SC2086
expect 0 "saved after 150 of 150 steps" $tiny --n-head 2 --logging-steps 50 --output model --max-steps 150 --eval-data eval.txt
grep -q "320 tokens in the vocabulary" out || fail "the vocabulary that was asked for"
loss=$(sed -n 's/^eval_loss \([0-9.]*\) .*/\1/p' out)
awk -v loss="$loss" 'BEGIN { exit !(loss > 0 && loss < 2) }' || fail "a loss below 2 after 150 steps, found '$loss'"
for file in config.json model.safetensors vocab.json merges.txt tokenizer.json tokenizer_config.json metrics.jsonl pretrain.toml; do
    [ -s "model/$file" ] || fail "no $file"
done
[ "$(wc -l <model/metrics.jsonl)" = 5 ] || fail "steps 1, 50, 100, 150 and the evaluation in metrics.jsonl"

# The same again from its own options, and with one thread: the same bits. Another seed: others.
expect 0 "saved after 150" --config model/pretrain.toml --output again --threads 1
cmp -s model/model.safetensors again/model.safetensors || fail "the same bits again"
# shellcheck disable=SC2086
expect 0 "saved after 3" $tiny --output other --max-steps 3 --seed 1 --position-init sinusoidal --dropout 0.1
cmp -s model/model.safetensors other/model.safetensors && fail "another model from other settings"

generate=$(dirname "$program")/generate
if [ -x "$generate" ]; then
    "$generate" --model model --prompt "Anna has" --greedy --max-new-tokens 10 --stop "." >out 2>err
    judge 0 $? "Anna has a " "generate opens the model"
    grep -Eq "^Anna has a (red|blue|green|yellow|black|white) [a-z]+$" out || fail "a sentence like those of the text"
fi

# Ctrl-C saves what is there.
# shellcheck disable=SC2086
"$program" $tiny --output interrupted --max-steps 100000 --logging-steps 1 >out 2>err &
process=$!
wait_for '^step 2/'
kill -INT $process
wait $process
judge 130 $? "interrupted, saved after" "Ctrl-C"
[ -s interrupted/model.safetensors ] || fail "a model after Ctrl-C"
ls -d ./*.tmp-* 2>/dev/null && fail "temporary files stay"

# shellcheck disable=SC2086
expect 2 "exists and is not empty" $tiny --output model
# shellcheck disable=SC2086
expect 2 "it holds --data" $tiny --output . --overwrite-output-dir
# shellcheck disable=SC2086
expect 2 "n_head: found 3, expected a divisor of n_embd, 32" $tiny --n-head 3 --output new
expect 2 "expected an integer from 257 to" --data text.txt --vocab-size 100 --output new
expect 1 "absent.txt" --data absent.txt --output new
: >empty.txt
expect 1 "empty.txt: found no text" --data empty.txt --output new
printf 'good \xff' >bytes.txt
expect 1 "bytes.txt: found bytes at 5 that are not UTF-8" --data bytes.txt --output new
expect 2 "--data is required" --output new
# shellcheck disable=SC2086
expect 2 "unknown option --layers" $tiny --output new --layers 3
[ -e new ] && fail "a refused run writes nothing"

finish
