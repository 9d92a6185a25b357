#!/usr/bin/env bash
# Makes everything in this folder again: data, tokenizer, model. Takes 5 to 20 minutes on two cores.
#   examples/demo/make_model.sh build/release/examples/pretrain [FOLDER]
set -e
pretrain=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
output=$(realpath -m "${2:-$here}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work"
python3 "$here/make_data.py" .
"$pretrain" --data corpus.txt --output model --vocab-size 1024 --n-layer 4 --n-embd 128 --n-head 4 --n-positions 256 \
    --position-init sinusoidal --num-train-epochs 2 --per-device-train-batch-size 16 --learning-rate 3e-3 \
    --warmup-steps 100 --seed 0
mkdir -p "$output"
rm -rf "$output/model"
mv model train.jsonl held_out.jsonl "$output"
