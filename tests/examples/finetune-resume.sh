#!/usr/bin/env bash
# Kills finetune at random moments and resumes it: the run ends with the bits of one that was never stopped.
# usage: finetune-resume.sh PROGRAM [KILLS]
. "$(dirname "$0")/trial.sh"
kills=${2:-10}

fresh_model model
cp "$fixtures/peft_data.jsonl" data.jsonl
head -n 20 data.jsonl >eval.jsonl
# Three micro-batches of 2 rows a step: 14 steps an epoch, the last of each shorter.
base=(--model model --data data.jsonl --eval-data eval.jsonl --threads 1 --max-steps 100 --eval-steps 7 --save-steps 3
    --save-total-limit 2 --load-best-model-at-end --early-stopping-patience 50 --per-device-train-batch-size 2
    --gradient-accumulation-steps 3 --lr-scheduler-type cosine --warmup-steps 9 --learning-rate 3e-3 --logging-steps 1
    --report-to csv,tensorboard,html)
methods=("--method lora --lora-dropout 0.2 --group-by-length" "--method dora --lora-dropout 0.1 --bias all --packing"
    "--method full --gradient-checkpointing --optim paged_adamw_8bit" "--method lora --lora-dropout 0.2 --dtype bf16"
    "--method adalora --lora-dropout 0.1 --init-r 4 --target-r 2 --tinit 9 --tfinal 20 --delta-t 7")

# What the run gives, without what the clock gives.
result() { # DIRECTORY
    cat "$1"/*model.safetensors | sha256sum
    sed -E 's/"(seconds|tokens_per_second|peak_memory_mb)":[^,}]*//g' "$1/metrics.jsonl"
}
# Every checkpoint that has its name is whole: the adapter in it loads, and a model does.
whole() { # DIRECTORY METHOD
    local directory
    for directory in "$1"/checkpoint-*; do
        case $directory in *.tmp-* | *'*') continue ;; esac
        [ -e "$directory/trainer_state.json" ] || continue # being deleted
        for file in optimizer.safetensors metrics.jsonl tensorboard.records; do
            [ -s "$directory/$file" ] || fail "$directory lacks $file"
        done
        rm -rf try
        case $2 in
        *full*) expect 0 "saved" --model "$directory" --data data.jsonl --max-steps 1 --output try ;;
        *) expect 0 "saved" --model model --init-adapter "$directory" --data data.jsonl --max-steps 1 --output try ;;
        esac
    done
}

for i in "${!methods[@]}"; do
    # shellcheck disable=SC2086
    expect 0 "after 100 of 100 steps" "${base[@]}" ${methods[i]} --output "straight$i"
    result "straight$i" >"straight$i.txt"
done

RANDOM=${SEED:-$(date +%s)}
echo "random seed: ${SEED:-$RANDOM}"
killed=0 runs=0
while [ "$killed" -lt "$kills" ]; do
    i=$((runs % ${#methods[@]})) runs=$((runs + 1))
    rm -rf stopped
    for ((here = 0; ; ++here)); do
        # shellcheck disable=SC2086
        "$program" "${base[@]}" ${methods[i]} --output stopped --resume >out 2>err &
        run=$!
        if [ "$killed" -lt "$kills" ] && [ $here -lt $(((kills + ${#methods[@]} - 1) / ${#methods[@]})) ]; then
            sleep "0.$(printf %03d $((RANDOM % 600 + 20)))"
            kill -KILL $run 2>/dev/null
        fi
        { wait $run; } 2>/dev/null
        code=$?
        [ $code = 137 ] || break
        killed=$((killed + 1))
        whole stopped "${methods[i]}"
    done
    judge 0 $code "after 100 of 100 steps" "resumed: ${methods[i]}"
    result stopped >stopped.txt
    cmp -s "straight$i.txt" stopped.txt || fail "a resumed run gives other results: ${methods[i]}"
    compgen -G 'stopped/*.tmp-*' >/dev/null && fail "half a directory was left"
    [ "$(compgen -G 'stopped/checkpoint-*' | wc -l)" -le 3 ] || fail "more checkpoints than --save-total-limit"
done
echo "killed $killed times in $runs runs"

# Ctrl-C leaves a checkpoint of the step at which it came.
# shellcheck disable=SC2086
"$program" "${base[@]/#100/100000}" ${methods[0]} --output stopped --overwrite-output-dir >out 2>err &
run=$!
wait_for 'step 5/'
kill -INT $run
wait $run
judge 130 $? "interrupted, saved" "Ctrl-C"
step=$(sed -nE 's/.* after ([0-9]+) of .*/\1/p' out)
[ -e "stopped/checkpoint-$step/trainer_state.json" ] || fail "Ctrl-C leaves a checkpoint"

# What --resume takes, and what may change in between.
short() { # CODE TEXT MODEL DATA MAX_STEPS ARGS…
    expect "$1" "$2" --model "$3" --data "$4" --max-steps "$5" --save-steps 2 --output short "${@:6}"
}
refused() { # TEXT ARGS…: as short
    short 2 "a run resumes with the settings that it began with: $1" "${@:2}" --resume
}
short 0 "no checkpoint in 'short', starting anew" model data.jsonl 4 --resume --threads 1
short 0 "resumed from short/checkpoint-4 at step 4 of 4" model data.jsonl 4 --resume latest
short 0 "resumed from short/checkpoint-2 at step 2 of 4" model data.jsonl 4 --resume short/checkpoint-2
short 0 "resumed from short/checkpoint-2 at step 2 of 4" model data.jsonl 4 --resume checkpoint-2/
short 0 "saved after 4 of 4" model data.jsonl 4 --resume --logging-steps 1 --save-total-limit 1 --threads 2
short 2 "expected latest or a checkpoint in --output short, such as checkpoint-4" model data.jsonl 4 --resume checkpoint-3
short 2 "exists and is not empty" model data.jsonl 4
while read -r option value text; do
    refused "$text" model data.jsonl 4 "$option" "$value"
done <<'LIST'
--learning-rate 1e-3 learning-rate was 0.0002 and is 1e-3
--seed 7 seed was 0 and is 7
--dtype bf16 dtype was "fp32" and is "bf16"
--r 4 r was 8 and is 4
--gradient-accumulation-steps 2 gradient-accumulation-steps was 1 and is 2
--lr-scheduler-type cosine lr-scheduler-type was "linear" and is "cosine"
--eval-data eval.jsonl the rows of the evaluation was not set
LIST
refused "the rows of --data was " model eval.jsonl 4
refused "max-steps was 4 and is 6" model data.jsonl 6
cp -r model other && printf '\x01' | dd of=other/model.safetensors bs=1 seek=20000 conv=notrunc status=none
refused "the file model.safetensors of --model was " other data.jsonl 4
rm -rf other && cp -r model other
short 0 "saved after 4 of 4" other data.jsonl 4 --resume
truncate -s 100 short/checkpoint-4/optimizer.safetensors
short 1 "short/checkpoint-4/optimizer.safetensors: " model data.jsonl 4 --resume
sed -i 's/"global_step": 4/"global_step": "x"/' short/checkpoint-4/trainer_state.json
short 1 "short/checkpoint-4/trainer_state.json: key 'global_step': found \"x\"" model data.jsonl 4 --resume
short 0 "saved after 4 of 4" model data.jsonl 4 --overwrite-output-dir
[ "$(compgen -G 'short/checkpoint-*' | wc -l)" = 2 ] || fail "--overwrite-output-dir leaves no checkpoints of before"

finish
