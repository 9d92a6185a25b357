# shellcheck shell=bash
# Sourced by the trials: runs one program again and again in an empty folder and compares exit codes and messages.
program=$1
[ -x "$program" ] || { echo "usage: $0 PROGRAM"; exit 2; }
fixtures=$(cd "$(dirname "${BASH_SOURCE[0]}")/../fixtures" && pwd)
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work" || exit 2
trials=0 failures=0

fail() {
    failures=$((failures + 1))
    echo "FAILED: $*"
    sed 's/^/    stderr: /' err | tail -5
}

# Compares the code and the output of what just ran into `out` and `err`; an error is one line.
judge() { # CODE GOT TEXT WHAT…
    local code=$1 got=$2 text=$3
    shift 3
    trials=$((trials + 1))
    if [ "$got" != "$code" ]; then
        fail "exit code $got, expected $code: $*"
    elif [ "$code" -ge 1 ] && [ "$code" -le 2 ]; then
        [ "$(grep -c '^error: ' err)" = 1 ] || fail "expected one line of error: $*"
        grep '^error: ' err | grep -qF -- "$text" || fail "expected an error with '$text': $*"
    else
        cat out err | grep -qF -- "$text" || fail "expected '$text': $*"
    fi
}

expect() { # CODE TEXT ARGS…
    local code=$1 text=$2
    shift 2
    "$program" "$@" >out 2>err
    judge "$code" $? "$text" "$*"
}

# A copy of a fixture that may be changed.
fresh() { # FIXTURE TO
    rm -rf "$2"
    cp -r "$fixtures/$1" "$2"
    chmod -R u+w "$2"
}

# The base model of the adapters in the fixtures, with a tokenizer of 48 characters.
fresh_model() { # TO
    fresh peft_base "$1"
    local characters='ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqr .,?' i
    {
        printf '{'
        for ((i = 0; i < 48; ++i)); do
            printf '%s"%s": %d' "$([ $i = 0 ] || echo ', ')" "${characters:i:1}" $i
        done
        printf '}'
    } >"$1/char_vocab.json"
}

# The loss of `model` with an adapter, to four digits after the point, by the evaluate beside the program.
loss() { # ADAPTER
    "$(dirname "$program")/evaluate" --model model --adapter "$1" --data "$fixtures/peft_data.jsonl" >out 2>err ||
        fail "evaluate $1"
    grep -o 'loss [0-9]*\.[0-9]\{4\}' out
}

# Waits until a command succeeds, at most half a minute.
until_true() { # COMMAND…
    local i
    for ((i = 0; i < 1500; ++i)); do
        "$@" && return
        sleep 0.02
    done
    fail "waited in vain: $*"
}
wait_for() { until_true grep -q -- "$1" err; } # TEXT, of a program that runs on

header_bytes() { od -An -t u8 -N8 "$1" | tr -d ' '; } # of a safetensors file

# A byte-level model of 463 tokens and no layers whose weights are all zero: it draws tokens evenly, and the most likely
# one is '!' for ever. A larger vocabulary is padded with rows that are no tokens.
zero_model() { # TO VOCABULARY POSITIONS
    local vocabulary=$2 positions=$3 tensors wpe wte
    wpe=$((16 + 8 * positions)) wte=$((16 + 8 * positions + 8 * vocabulary))
    mkdir "$1"
    cp "$fixtures"/text_tiny_bpe/* "$1"
    printf '{"model_type": "gpt2", "vocab_size": %d, "n_positions": %d, "n_embd": 2, "n_layer": 0, "n_head": 1}' \
        "$vocabulary" "$positions" >"$1/config.json"
    tensors='{"ln_f.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    tensors+=',"ln_f.weight":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}'
    tensors+=",\"wpe.weight\":{\"dtype\":\"F32\",\"shape\":[$positions,2],\"data_offsets\":[16,$wpe]}"
    tensors+=",\"wte.weight\":{\"dtype\":\"F32\",\"shape\":[$vocabulary,2],\"data_offsets\":[$wpe,$wte]}}"
    {
        printf "\\x$(printf %02x $((${#tensors} & 255)))\\x$(printf %02x $((${#tensors} >> 8)))\\0\\0\\0\\0\\0\\0%s" "$tensors"
        head -c "$wte" /dev/zero
    } >"$1/model.safetensors"
}

finish() {
    echo "$((trials - failures)) of $trials trials as expected"
    [ "$failures" = 0 ]
    exit
}
