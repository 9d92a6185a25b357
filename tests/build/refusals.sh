#!/bin/bash
# Mistakes that the compiler must refuse, each with the message that its file states: refusals.sh COMPILER FOLDER
set -euo pipefail
compiler=$1 folder=$2
source=$(realpath "$(dirname "$0")/../..")
mkdir -p "$folder"
for file in "$source"/tests/build/refusals/*.cpp; do
    name=$(basename "$file")
    message=$(sed -n 's|^// Message: ||p' "$file")
    if "$compiler" -std=c++20 -fsyntax-only -I"$source/include" "$file" >"$folder/found" 2>&1; then
        echo "$name compiles"
        exit 1
    fi
    grep -Eq "error:.*($message)|static assertion failed: ($message)|note:.*($message)" "$folder/found" || {
        echo "$name: expected a message like '$message', found:"
        head -n 20 "$folder/found"
        exit 1
    }
    echo "$name: refused"
done
