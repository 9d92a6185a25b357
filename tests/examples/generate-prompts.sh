#!/usr/bin/env bash
# Tries generate with files of prompts: the answers are those that the prompts get alone, in order, whatever the batch.
. "$(dirname "$0")/trial.sh"

model=$fixtures/../../examples/demo/model
lines() { [ "$(wc -l <"$1")" = "$2" ] || fail "expected $2 lines in $1, found $(wc -l <"$1")"; }

# Records keep what they have, and get a response. Rows end at different times.
cat >questions.jsonl <<'END'
{"prompt": "Question: Where does Mia live?\nAnswer:", "id": 7}

{"prompt": "Question: What is the work of Greta? She said something about it yesterday, in the morning.\nAnswer:"}
{"prompt": "The"}
{"prompt": ""}
{"prompt": "Question: Which animal lives with Sarah?\nAnswer:", "completion": " crow"}
END
settings=(--model "$model" --max-new-tokens 30 --stop "
Question")
for sampling in "--greedy" "--seed 5 --temperature 1.2 --top-k 50"; do
    # shellcheck disable=SC2086 # options are words
    for batch in 1 2 8; do
        expect 0 "5 of 5 prompts answered" "${settings[@]}" $sampling --prompts questions.jsonl --batch-size $batch
        lines out 5
        cp out "answers$batch"
    done
    cmp answers1 answers2 && cmp answers1 answers8 || fail "the same answers for each batch size with $sampling"
    expect 0 "5 of 5" "${settings[@]}" $sampling --prompts questions.jsonl --output answers.jsonl --threads 1
    [ -s out ] && fail "nothing on standard output beside --output"
    cmp answers.jsonl answers8 || fail "the same answers in a file, and with one thread"
done
expect 0 "" "${settings[@]}" --greedy --prompt "$(printf 'Question: Where does Mia live?\nAnswer:')"
alone=$(tail -n 1 out)
expect 0 "" "${settings[@]}" --greedy --prompts questions.jsonl
head -n 1 out | grep -qF "\"response\":\"${alone#Answer:}\"" || fail "the answer that the prompt gets alone, '$alone'"
head -n 1 out | grep -qF '{"id":7,"prompt":"Question: Where' || fail "the record's own keys"
head -n 1 out | grep -qF '"finish_reason":"stop"' || fail "stopped at the stop text"
sed -n 3p out | grep -qF '"finish_reason":"length"' || fail "stopped at the number of tokens"
sed -n 5p out | grep -qF '"completion":" crow"' || fail "a completion that the record has stays"
expect 0 "5 of 5" --model "$model" --prompts questions.jsonl --max-new-tokens 0
[ "$(grep -c '"response":"","finish_reason":"length"' out)" = 5 ] || fail "five empty answers"

# What may become a stop text is held back, but not lost when the answer ends with it.
printf '{"prompt": "The"}' >the.jsonl
response() { grep -o '"response":"[^"]*"' out | cut -d '"' -f 4; }
expect 0 "1 of 1" --model "$model" --prompts the.jsonl --greedy --max-new-tokens 4
text=$(response)
expect 0 "1 of 1" --model "$model" --prompts the.jsonl --greedy --max-new-tokens 4 --stop "${text: -1}zzz"
[ -n "$text" ] && [ "$(response)" = "$text" ] || fail "expected '$text', found '$(response)'"

# A prompt a line; instructions with a template; a list.
printf 'The\r\n\n  \nMia' >lines.txt
expect 0 "2 of 2" "${settings[@]}" --greedy --prompts lines.txt
head -n 1 out | grep -qF '"prompt":"The"' || fail "a prompt a line"
echo '[{"instruction": "Where does Mia live?", "input": ""}, {"instruction": "Say", "input": "it"}]' >list.json
expect 0 "2 of 2" "${settings[@]}" --greedy --prompts list.json --template plain
printf '{"prompt": "Where does Mia live?\\n"}\n{"prompt": "Say\\nit\\n"}' >rendered.jsonl
cp out list_answers
expect 0 "2 of 2" "${settings[@]}" --greedy --prompts rendered.jsonl
[ "$(grep -o '"response":.*' out)" = "$(grep -o '"response":.*' list_answers)" ] || fail "instructions in their template"

# What is wrong is said before anything is written.
refuse() { # TEXT CONTENT
    printf '%s' "$2" >wrong.jsonl
    expect 1 "$1" "${settings[@]}" --prompts wrong.jsonl --output new.jsonl
    [ -e new.jsonl ] && fail "no answers to $2"
}
refuse "wrong.jsonl: line 2, record 2: key 'prompt': found no such key" '{"prompt": "A"}
{"text": "A"}'
refuse "key 'prompt': found a prompt beside an instruction" '{"prompt": "A", "instruction": "B"}'
refuse "key 'prompt': found 3 (number), expected a string" '{"prompt": 3}'
refuse "line 1, record 1: found " '["A"]'
refuse "wrong.jsonl: line 1" '{"prompt": '
refuse "wrong.jsonl: found an empty file" ''
refuse "expected 1 to 256, the positions of the model" "{\"prompt\": \"$(printf 'mill %.0s' {1..300})\"}"
printf ' \n\n' >blank.txt
expect 1 "blank.txt: found only white space" "${settings[@]}" --prompts blank.txt
printf 'a\xffb' >bytes.txt
expect 1 "bytes.txt: line 1: found the byte 0xff" "${settings[@]}" --prompts bytes.txt
expect 1 "nowhere.txt" "${settings[@]}" --prompts nowhere.txt
expect 1 "nowhere/x.jsonl" "${settings[@]}" --prompts lines.txt --output nowhere/x.jsonl
expect 2 "--output: found the file of --prompts" "${settings[@]}" --prompts lines.txt --output ./lines.txt
expect 1 "expected a regular file" "${settings[@]}" --prompts lines.txt --output /dev/null
"$program" "${settings[@]}" --prompts lines.txt >/dev/full 2>err
judge 1 $? "standard output: not everything could be written" "a full disk for standard output"

# Interrupted in the middle of many prompts, it writes the answers that are complete.
zero_model long 463 100000
for ((i = 0; i < 20000; ++i)); do echo "prompt $i"; done >many.txt
"$program" --model long --prompts many.txt --max-new-tokens 9000 --output many.jsonl >out 2>err &
pid=$!
has_begun() { compgen -G 'many.jsonl.tmp-*' >/dev/null; }
until_true has_begun
sleep 1
kill -INT $pid
wait $pid
judge 130 $? "of 20000 prompts answered" "interrupted"
answers=$(wc -l <many.jsonl)
[ "$answers" -ge 1 ] && [ "$answers" -lt 20000 ] || fail "some answers, found $answers"
last=$(tail -n 1 many.jsonl | sed 's/.*"prompt \([0-9]*\)".*/\1/')
head -n $((last + 1)) many.txt >some.txt
expect 0 "$((last + 1)) of $((last + 1))" --model long --prompts some.txt --max-new-tokens 9000 --output some.jsonl
grep -vxFf some.jsonl many.jsonl >other && fail "the answers that there are without an interrupt, found others: $(head -c 300 other)"
ls ./*.tmp-* 2>/dev/null && fail "temporary files stay"

finish
