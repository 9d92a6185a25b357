#!/bin/bash
# The example programs, end to end: an adapter trained on a small model lowers the loss: examples.sh PROGRAMS FOLDER
set -euo pipefail
programs=$1 folder=$2
fixtures=$(realpath "$(dirname "$0")/../fixtures")
rm -rf "$folder"
common=(--model "$fixtures/peft_base" --data "$fixtures/peft_data.jsonl")
"$programs/finetune" "${common[@]}" --output "$folder" --target-modules all-linear --learning-rate 0.02
before=$("$programs/evaluate" "${common[@]}")
after=$("$programs/evaluate" "${common[@]}" --adapter "$folder")
printf 'before: %s\nafter:  %s\n' "$before" "$after"
awk -v b="${before##*perplexity }" -v a="${after##*perplexity }" 'BEGIN { exit !(a < b / 2) }'
