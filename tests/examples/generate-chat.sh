#!/usr/bin/env bash
# Tries the chat of generate through a pipe: turns, commands, the end of positions, interrupts.
. "$(dirname "$0")/trial.sh"

model=$fixtures/../../examples/demo/model
chat() { # CODE TEXT INPUT ARGS…
    local code=$1 text=$2 input=$3
    shift 3
    # shellcheck disable=SC2059 # the input has escapes
    printf "$input" | "$program" --model "$model" --chat --greedy "$@" >out 2>err
    judge "$code" $? "$text" "chat of '$input': $*"
}
continuation() { # PROMPT ARGS…
    printf '%s' "$1" | "$program" --model "$model" --greedy --prompt - "${@:2}" | tail -c +$((${#1} + 1))
}
same() { # FILE TEXT WHAT
    [ "$(cat "$1")" = "$2" ] || fail "$3: expected '$2', found '$(cat "$1")'"
}

# Answers are those to the conversation as the template writes it, without any prompt sign; blank lines do not count.
sentence=(--max-new-tokens 12 --stop .)
mia=$'Where does Mia live?\n' she=$'What does she like\n'
first=$(continuation "$mia" "${sentence[@]}")
second=$(continuation "$mia$first<|endoftext|>"$'\n'"$she" "${sentence[@]}")
[ -n "$first" ] && [ -n "$second" ] && [ "$second" != "$(continuation "$she" "${sentence[@]}")" ] ||
    fail "answers that depend on what was before: '$first', '$second'"
chat 0 "$first" 'Where does Mia live?\r\n\n  \nWhat does she like' "${sentence[@]}" --template plain
same out "$first"$'\n'"$second" "two answers"
chat 0 "$first" "$mia/reset\n$she/quit\n$mia" "${sentence[@]}" --template plain
[ "$(wc -l <out)" = 2 ] || fail "/quit ends"
same <(tail -n 1 out) "$(continuation "$she" "${sentence[@]}")" "/reset forgets"
alpaca=$'### Instruction:\nWhere does Mia live?\n\n### Response:\n'
chat 0 "" 'Where does Mia live?\n' "${sentence[@]}"
same out "$(continuation "$alpaca" "${sentence[@]}")" "Alpaca's template unless another is given"
chat 0 "" 'Where does Mia live?\n' "${sentence[@]}" --system Short.
same out "$(continuation $'Short.\n\n'"$alpaca" "${sentence[@]}")" "a system turn"
for input in '' '\n \n' '/quit\nA\n'; do
    # shellcheck disable=SC2059
    printf "$input" | "$program" --model "$model" --chat --system A >out 2>err
    [ $? = 0 ] && [ ! -s out ] || fail "no messages, no answers: '$input'"
done
"$program" --model "$model" --chat <&- >out 2>err
[ $? = 0 ] || fail "a closed standard input"

# When positions run out, the oldest turns go; what does not fit by itself is refused.
questions=$(printf 'Tell me where Mia lives, and what Greta likes to eat in the morning.\\n%.0s' {1..12})
chat 0 "forgot the oldest 2 turns" "$questions" --max-new-tokens 20
fresh_model small # 24 positions and no end-of-sequence token
printf '{"user": "{content}.", "assistant": "A {content}?"}' >small.json
echo HE | "$program" --model small --chat --greedy --template small.json >out 2>err
judge 0 $? "stopped at the model's last position" "an answer that needs more positions"
chat 2 "message: found " "$(printf 'mill %.0s' {1..300})\n"
chat 2 'found "/rest", expected a message, /reset or /quit' '/rest\n'
chat 2 "not valid UTF-8" 'a\xffb\n'
chat 2 "system: found a text, expected none" 'A\n' --system A --template mistral
printf 'X {instruction}' >given.txt
chat 2 "--chat: found a template for instructions only" 'A\n' --template given.txt
chat 2 "--stop: found an empty text" 'A\n' --stop ""
printf 'A\n' | "$program" --model "$model" --chat >/dev/full 2>err
judge 1 $? "standard output: not everything could be written" "a full disk for standard output"

# Ctrl-C ends an answer and not the chat; at the prompt it ends the chat. This model says '!' for ever.
zero_model long 463 1000000
has_lines() { [ "$(wc -l <out)" -ge "$1" ]; }
has_begun() { [ -n "$(tail -n "+$1" out | head -c 1)" ]; }
mkfifo messages
: >out
env --default-signal=INT "$program" --model long --chat --greedy --max-new-tokens 900000 <messages >out 2>err &
pid=$!
exec 3>messages
echo A >&3
until_true has_begun 1
kill -INT $pid
until_true has_lines 1
length=$(head -n 1 out | wc -c)
[ "$length" -lt 900000 ] || fail "the first answer is cut, found $length characters"
echo B >&3
until_true has_begun 2
kill -INT $pid
until_true has_lines 2
sleep 0.3 # it waits for a message now
kill -INT $pid
wait $pid
judge 130 $? "!" "Ctrl-C at the prompt"
exec 3>&-

finish
