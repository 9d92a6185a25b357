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

header_bytes() { od -An -t u8 -N8 "$1" | tr -d ' '; } # of a safetensors file

finish() {
    echo "$((trials - failures)) of $trials trials as expected"
    [ "$failures" = 0 ]
    exit
}
