#!/usr/bin/env bash
# Tries search: halving and random search, equality with finetune, failures, Ctrl-C, and what is refused.
. "$(dirname "$0")/trial.sh"
finetune=$(dirname "$program")/finetune

fresh_model model
cp "$fixtures/peft_data.jsonl" data.jsonl
base=(--model model --data data.jsonl --threads 1)
short=(--max-steps 18 --min-steps 2 --per-device-train-batch-size 4)
refused() { # CODE TEXT ARGS…: leaves nothing
    rm -rf new
    expect "$1" "$2" "${base[@]}" --output new "${@:3}"
    compgen -G 'new*' >/dev/null && fail "something was written: ${*:3}"
}
field() { sed -E "s/.*\"$1\":(\[[^]]*\]|[^,}]*).*/\1/" "$2"; } # of each line of a trials.jsonl
timeless() { sed -E 's/"seconds":[^,]*//' "$1"; }

expect 2 "--data is required" --model model --output new
while read -r option value text; do
    refused 2 "$text" "$option" "$value"
done <<'LIST'
--method bogus bogus not in {random,halving}
--trials 0 --trials: found '0'
--max-steps 0 --max-steps: found '0'
--min-steps 0 --min-steps: found '0'
--reduction-factor 1 --reduction-factor: found '1', expected an integer from 2
--r 0,4 --r: found '0', expected integers from 1 to 1048576
--r 2.5 --r: found '2.5'
--r 8:4 --r: found '8:4', expected a range from low to high
--r 4:8:16 --r: found '8:16'
--learning-rate 0 --learning-rate: found '0', expected numbers above 0
--learning-rate 1e-3:x --learning-rate: found 'x'
--learning-rate nan --learning-rate: found 'nan'
--lora-alpha-ratio 0:1 --lora-alpha-ratio: found '0:1', expected a range from low to high, both above 0
--lora-dropout 0:1 --lora-dropout: found '1', expected numbers from 0 to 0.999
--loraplus-lr-ratio 0.5 --loraplus-lr-ratio: found '0.5', expected 0 or numbers of 1 or more
--target-modules c_attn,bogus --target-modules: 'bogus' matches no linear layer
--eval-split 0 --eval-split: found '0'
--eval-split 0.999 leaves none for training
--template alpaca --template: found data whose text stands as it is
--warmup-steps -1 --warmup-steps: found '-1'
LIST
refused 2 "expected one of them" --lora-alpha 8 --lora-alpha-ratio 2
refused 2 "expected one of them" --eval-split 0.5 --eval-data data.jsonl
refused 1 "nowhere.jsonl: cannot open" --eval-data nowhere.jsonl
expect 2 "it holds --model" --model model --data data.jsonl --output . --overwrite-output-dir

# Successive halving: 9 trials, then 3, then 1, each going on where it was.
space=(--r 2,4,8 --lora-dropout 0:0.3 --loraplus-lr-ratio 0,4 --learning-rate 1e-3:1e-1
    --target-modules c_attn,c_proj 'all-linear' '.*\.c_fc' --warmup-steps 2)
expect 0 "trials: 9 up to step 2, 3 up to step 6, 1 up to step 18" "${base[@]}" "${short[@]}" "${space[@]}" --output halving
[ "$(field steps halving/trials.jsonl | xargs)" = "18 6 6 2 2 2 2 2 2" ] || fail "the steps of the trials, best first"
[ "$(field state halving/trials.jsonl | sort | uniq -c | xargs)" = '1 complete 8 stopped' ] || fail "the states"
[ "$(grep -cE '^ +[1-9] .*(complete|stopped) ' out)" = 9 ] || fail "a table of nine trials"
[ "$(grep -c 'left  (r ' err)" = 13 ] || fail "a line for each trial and rung"
for rung in 2 6; do # who went on had the lowest losses of its rung
    went_on=$(grep -cE "\"steps\":($((rung * 3))|18)," halving/trials.jsonl)
    best=$(grep -E "\"step\":$rung," halving/trials.jsonl |
        sed -E "s/\{\"trial\":([0-9]+),.*\"step\":$rung,\"eval_loss\":([0-9.e-]*).*/\2 \1/" | sort -g | head -n "$went_on")
    [ "$(cut -d' ' -f2 <<<"$best" | sort | xargs)" = "$(head -n "$went_on" halving/trials.jsonl | sed -E 's/\{"trial":([0-9]+),.*/\1/' | sort | xargs)" ] ||
        fail "the best of step $rung go on"
done
[ "$(field dropout halving/trials.jsonl | sort -u | wc -l)" -gt 3 ] || fail "dropouts of a range"
for set in '["c_attn","c_proj"]' '["all-linear"]' '[".*\\\\.c_fc"]'; do
    grep -qF "\"target_modules\":$set" <(sed 's/\\\\/\\\\\\\\/g' halving/trials.jsonl) || fail "the set $set is drawn"
done

# The best trial is, to the bit, the run that its finetune.toml makes.
"$finetune" --config halving/finetune.toml --output trained --logging-steps 1 --threads 2 >out 2>err
judge 0 $? "saved after 18 of 18" "finetune.toml"
cmp -s trained/adapter_model.safetensors halving/best/adapter_model.safetensors || fail "another adapter than finetune's"
cmp -s trained/adapter_config.json halving/best/adapter_config.json || fail "other settings than finetune's"
cmp -s trained/char_vocab.json halving/best/char_vocab.json || fail "the tokenizer is beside the adapter"
[ "$(head -n 1 halving/trials.jsonl | field losses - | tr -d '[]' | tr , '\n')" = "$(sed -nE 's/.*"loss":([^,]*),.*/\1/p' trained/metrics.jsonl)" ] ||
    fail "other losses than finetune's"
"$finetune" --config halving/finetune.toml --max-steps 20 --lr-scheduler-type cosine --output trained --overwrite-output-dir >out 2>err
judge 0 $? "saved after 20 of 20" "finetune.toml with more steps"

# The same again by its own configuration and with other threads; and random search begins each trial alike.
expect 0 "best: trial" --config halving/search.toml --threads 2 --output again
cmp -s <(timeless halving/trials.jsonl) <(timeless again/trials.jsonl) || fail "not the same for a seed"
cmp -s halving/search.svg again/search.svg || fail "not the same chart"
expect 0 "trials: 3 up to step 6" --config halving/search.toml --method random --trials 3 --max-steps 6 --eval-steps 3 \
    --output random
[ "$(field state random/trials.jsonl | xargs)" = "complete complete complete" ] || fail "random search completes all"
[ "$(grep -o '"step":[36],' random/trials.jsonl | wc -l)" = 6 ] || fail "--eval-steps"
for trial in 1 2 3; do
    first=$(grep "^{\"trial\":$trial," halving/trials.jsonl | field losses - | cut -d, -f1-2 | tr -d '[]')
    grep "^{\"trial\":$trial," random/trials.jsonl | grep -qF "\"losses\":[$first," || fail "trial $trial begins otherwise"
done
expect 0 "best: trial" "${base[@]}" "${short[@]}" --output other --seed 1 --trials 2
grep -qF "$(head -n 1 halving/trials.jsonl | field losses - | cut -d, -f1)" other/trials.jsonl && fail "the seed changes nothing"

# The chart: both parts, a line a trial, and one legend each.
for chart in halving/search.svg random/search.svg; do
    [ "$(grep -o '<svg' $chart | wc -l)" = 5 ] && [ "$(grep -o 'class="legend"' $chart | wc -l)" = 2 ] || fail "$chart"
    ! command -v xmllint >/dev/null || xmllint --noout $chart || fail "$chart is no XML"
done
[ "$(grep -c '<g class="line' halving/search.svg)" = 18 ] || fail "a line a trial"

# Small spaces, and alphas that are given.
expect 0 "the space has 2 different settings, not 9" "${base[@]}" "${short[@]}" --r 4 --learning-rate 1e-3 \
    --lora-alpha 8,32 --eval-data data.jsonl --output small
[ "$(field lora_alpha small/trials.jsonl | sort | xargs)" = "32.0 8.0" ] || fail "the two alphas"
expect 0 "best: trial" --config small/search.toml --output again --overwrite-output-dir
expect 2 "exists and is not empty" "${base[@]}" --output small

# A trial that diverges has failed, and the others go on; when all do, there is no best.
expect 0 "failed" "${base[@]}" "${short[@]}" --learning-rate 1e38,1e-3 --max-grad-norm 0 --trials 8 --output failing
failed=$(grep -c '"state":"failed".*"error":"' failing/trials.jsonl)
[ "$failed" -ge 1 ] && [ "$failed" -lt 8 ] && tail -n 1 failing/trials.jsonl | grep -q failed || fail "those that failed come last"
tail -n 1 failing/trials.jsonl | grep -q '"eval_loss":null' || fail "a trial that failed has no loss"
rm -rf failing
expect 1 "every trial failed, the first one by: training: " "${base[@]}" "${short[@]}" --learning-rate 1e38 --max-grad-norm 0 \
    --output failing
[ -s failing/trials.jsonl ] && [ ! -e failing/best ] || fail "the trials are written, and no best"

# Ctrl-C ends the running trial; what is there is written.
long=(--r 2,4 --max-steps 100000 --eval-steps 100000)
"$program" "${base[@]}" "${long[@]}" --min-steps 5 --reduction-factor 30 --trials 30 --output stopped >out 2>err &
run=$!
wait_for 'rung 1/2  trial 2/30'
kill -INT $run
wait $run
judge 130 $? "interrupted; best: trial" "Ctrl-C"
grep -q '"state":"interrupted"' stopped/trials.jsonl || fail "the state of a trial that was interrupted"
"$finetune" --model model --data data.jsonl --init-adapter stopped/best --max-steps 1 --output after >out 2>err
judge 0 $? "saved" "the adapter of an interrupted search"

finish
