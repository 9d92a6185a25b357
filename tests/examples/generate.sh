#!/usr/bin/env bash
# Tries generate as people use and misuse it: prompts, sampling, stop texts, streaming.
. "$(dirname "$0")/trial.sh"

for option in model adapter threads dtype prompt instruction input prompts output batch-size chat system template \
    max-new-tokens temperature top-k top-p min-p repetition-penalty greedy seed stop config; do
    "$program" --help | grep -q -- "^  --$option\b" || fail "--help lacks --$option"
done

# A trained model of 24 positions and 48 characters without an end-of-sequence token.
fresh_model model
expect 0 "HELLO" --model model --prompt HELLO --max-new-tokens 5 --seed 1
[ "$(wc -c <out)" = 11 ] || fail "five characters behind the prompt, and the end of the line"
cp out first
expect 0 "$(cat first)" --model model --prompt HELLO --max-new-tokens 5 --seed 1 --threads 2
expect 0 "HELLO" --model model --prompt HELLO --max-new-tokens 5 --seed 2
cmp -s out first && fail "another seed gives another text"
expect 0 "HELLO" --model model --prompt HELLO --max-new-tokens 5 --greedy
cp out first
expect 0 "$(cat first)" --model model --prompt HELLO --max-new-tokens 5 --greedy --seed 7
expect 0 "$(cat first)" --model model --prompt HELLO --max-new-tokens 5 --top-k 1
expect 0 "$(cat first)" --model model --prompt HELLO --max-new-tokens 5 --top-p 1e-9
expect 0 "$(cat first)" --model model --prompt HELLO --max-new-tokens 5 --min-p 1
expect 0 "HELLO" --model model --prompt HELLO --max-new-tokens 5 --greedy --dtype bf16
expect 2 "--dtype: fp16 not in {fp32,bf16}" --model model --prompt HELLO --dtype fp16
expect 0 "HELLO" --model model --prompt HELLO --max-new-tokens 15 --greedy --adapter "$fixtures/peft_rsdora"
cmp -s <(head -c 10 first) <(head -c 10 out) && fail "the adapter changes the text"
printf HELLO | "$program" --model model --prompt - --max-new-tokens 5 --greedy >out 2>err
judge 0 $? "$(cat first)" "the prompt from standard input"
expect 0 "ABC" --model model --prompt ABC --max-new-tokens 0
[ "$(cat out)" = ABC ] || fail "no token is the prompt alone"
expect 0 "stopped at the model's last position, 24" --model model --prompt ABC --max-new-tokens 99
expect 0 "stopped at the model's last position, 24" --model model --prompt ABCDEFGHIJKLMNOPQRSTUVWX
stop=$(cut -c 8-9 first)
expect 0 "$(cut -c 1-7 first)" --model model --prompt HELLO --max-new-tokens 15 --greedy --stop zzz --stop "$stop"
[ "$(cat out)" = "$(cut -c 1-7 first)" ] || fail "the text ends before the stop text"

expect 2 "--prompt: found 25 tokens, expected 1 to 24" --model model --prompt ABCDEFGHIJKLMNOPQRSTUVWXY
[ -s out ] && fail "a prompt that is refused is not printed"
expect 2 "--prompt: found 0 tokens" --model model --prompt ""
expect 2 "--prompt: found 0 tokens" --model model
"$program" --model model --prompt - <&- >out 2>err
judge 2 $? "--prompt: found 0 tokens" "a closed standard input"
expect 2 "not valid UTF-8 at byte 1 of 3" --model model --prompt $'A\xffB'
expect 2 'the character "!" at byte 1' --model model --prompt 'A!'
printf 'A\0B' | "$program" --model model --prompt - >out 2>err
judge 2 $? "the character of code 0 at byte 1" "a zero byte in the prompt"
while read -r option value text; do
    expect 2 "$text" --model model --prompt A "$option" "$value"
done <<'LIST'
--max-new-tokens -1 --max-new-tokens: found '-1', expected an integer of 0 or more
--max-new-tokens x found 'x'
--temperature 0 temperature: found 0.0
--temperature nan found 'nan'
--temperature -1 found '-1'
--top-k -1 found '-1'
--top-p 0 top_p: found 0.0
--top-p 1.1 found '1.1', expected a number from 0 to 1
--min-p 1.1 --min-p: found '1.1', expected a number from 0 to 1
--min-p -0.1 found '-0.1'
--batch-size 0 found '0', expected an integer of 1 or more
--batch-size 4 --batch-size: goes with --prompts, which is missing
--output x --output: goes with --prompts, which is missing
--system x --system: goes with --chat, which is missing
--prompts x --prompts: give either this or --prompt, not both
--template alpaca --template: goes with --instruction, --prompts or --chat
--repetition-penalty 0 repetition_penalty: found 0.0
--repetition-penalty inf found 'inf'
--seed -1 found '-1'
--seed 18446744073709551616 found '18446744073709551616'
--instruction x --instruction: give either this or --prompt
--input x --input: goes with --instruction
--num-beams 4 unknown option --num-beams
--device cuda unknown option --device
LIST
expect 2 "--stop: found an empty text" --model model --prompt A --stop ""
expect 2 "--temperature: has no meaning with --greedy" --model model --prompt A --greedy --temperature 0.5
expect 2 "--min-p: has no meaning with --greedy" --model model --prompt A --greedy --min-p 0.5
expect 2 "--chat: give either this or --prompt" --model model --prompt A --chat

# An instruction goes into the template that is given, or was stored with the adapter or the model, or Alpaca's.
answer_to() { # PROMPT OPTIONS…: what follows the prompt
    "$program" --model model --max-new-tokens 8 --greedy --prompt "$@" | cut -c $((${#1} + 1))-
}
expect_answer() { # TO ARGS…
    local text=$1
    shift
    expect 0 "" --model model --max-new-tokens 8 --greedy "$@"
    [ "$(cat out)" = "$text" ] || fail "expected '$text', found '$(cat out)': $*"
}
cp -r "$fixtures/peft_rsdora" adapter && chmod -R u+w adapter
echo '{"prompt_no_input": "Q {instruction} A", "prompt_input": "Q {instruction} I {input} A"}' >adapter/template.json
expect_answer "$(answer_to "Q HE A" --adapter adapter)" --instruction HE --adapter adapter
expect_answer "$(answer_to "Q HE I LO A" --adapter adapter)" --instruction HE --input LO --adapter adapter
printf 'X {instruction}' >given.txt
expect_answer "$(answer_to "X HE" --adapter adapter)" --instruction HE --adapter adapter --template given.txt
expect 2 "no {input} in the template" --model model --instruction HE --input LO --template given.txt
expect 2 '--instruction: ' --model model --instruction HE # Alpaca's has characters that this model lacks
printf '{"user": "U {content}.", "assistant": "A {content}Z"}' >model/template.json
expect_answer "$(answer_to "U HE.A" | sed 's/Z.*//')" --instruction HE
cp out first_answer
stop=$(cut -c 3 first_answer)
printf '{"user": "U {content}.", "assistant": "A {content}%s"}' "$stop" >ends.json
expect_answer "$(cut -d "$stop" -f 1 first_answer)" --instruction HE --template ends.json
expect_answer "$(answer_to "Q HE A" --adapter adapter)" --instruction HE --adapter adapter
rm model/template.json
echo '{"prompt": "x"}' >adapter/template.json
expect 1 "adapter/template.json" --model model --instruction HE --adapter adapter
expect 2 'template: found "nowhere", expected a file or one of alpaca' --model model --instruction A --template nowhere
expect 1 "nowhere/config.json: cannot open" --model nowhere --prompt A
expect 1 "nowhere/adapter_config.json: cannot open" --model model --prompt A --adapter nowhere
expect 1 "found no tokenizer" --model "$fixtures/peft_base" --prompt A
fresh_model broken
printf '\x00\x00\xc0\x7f' | dd of=broken/model.safetensors bs=1 seek=$((8 + $(header_bytes broken/model.safetensors) + 60288)) \
    conv=notrunc status=none
expect 1 "not finite" --model broken --prompt A

# A byte-level model whose weights are all zero draws bytes evenly: whatever the number of tokens, no part of a
# character is printed. Its vocabulary is padded, as those of many models are: 463 tokens and 7 rows without one.
zero_model zero 470 64
for seed in 1 2 3; do
    for tokens in 1 2 3 5 8 13 21 34 55; do
        expect 0 "" --model zero --prompt "" --max-new-tokens $tokens --seed $seed
        iconv -f UTF-8 -t UTF-8 out >/dev/null 2>&1 || fail "part of a character after $tokens tokens of seed $seed"
    done
    expect 0 "" --model zero --prompt "" --max-new-tokens 55 --seed $seed --stop e --stop o
    grep -q '[eo]' out && fail "a stop text in the output of seed $seed"
done
expect 0 '!!!!!' --model zero --prompt "" --max-new-tokens 5 --greedy

"$program" --model model --prompt A >/dev/full 2>err
judge 1 $? "standard output: not everything could be written" "a full disk for standard output"
"$program" --model model --prompt A >&- 2>err
judge 1 $? "standard output: not everything could be written" "a closed standard output"
{
    "$program" --model zero --prompt "" --max-new-tokens 60
    echo $? >code
} 2>err | head -c 1 >/dev/null
[ "$(cat code)" -le 1 ] || fail "a reader that leaves early"

finish
