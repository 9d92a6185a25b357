"""Makes tests/fixtures/train_bleu.json: tokens and scores of sacreBLEU (pip install sacrebleu) for sentences of its own.

usage: train_bleu_fixtures.py [OUTPUT]
"""
import json
import pathlib
import random
import sys

from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else \
    pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "train_bleu.json"

lines = [
    "", " ", "Hello, world!", "a.b,c", "1,000.5 and 3.14.", "..", "...,,,", "a..b.", "5-3 e-mail 2-", "x-\ny z\nw",
    "<skipped>it &quot;is&quot; &amp;lt; &lt;b&gt;", "naïve café, élan.", "日本語。テスト,です.", "tab\tand\u00a0nbsp\u2003em",
    "'quoted' \"double\" (round) [square] {curly}", "$5.00 50% #1 a/b a@b.c ~!^&*_+=|\\`<>?:;", "end \u3000", "é.5,é",
    "1.2.3,4-5-6", ".5 5. ,5 5,", "\x1cfile\x1dgroup\x85next", "a -- b --- c-d", "it's don't o'clock", "-\n", "&amp;amp;",
]
random.seed(7)
alphabet = list("ab1 29.,-'&;é日\n\t/\"<>") + [" "] * 6
lines += ["".join(random.choice(alphabet) for _ in range(random.randrange(0, 40))) for _ in range(200)]

tokenize = Tokenizer13a()
tokens = [{"line": line, "tokens": tokenize(line.rstrip()).split()} for line in lines]

words = "the a dog cat man bit saw , . not was it house in on near city-centre 3.5 very".split(" ")


def sentence(low, high):
    return " ".join(random.choice(words) for _ in range(random.randrange(low, high)))


def near(text):
    return " ".join(w if random.random() < 0.7 else random.choice(words) for w in text.split(" "))


cases = []
shapes = [(1, 0, 1, 1), (1, 1, 6, 1), (3, 0, 12, 1), (5, 3, 14, 2), (20, 4, 20, 3), (8, 1, 4, 2), (4, 6, 9, 1)]
for hyps, low, high, refs in shapes * 4:
    references = [[sentence(low, high + 1) for _ in range(refs)] for _ in range(hyps)]
    hypotheses = [near(random.choice(r)) if random.random() < 0.9 else sentence(low, high + 1) for r in references]
    cases.append((hypotheses, references))
cases += [(["this is a test", "another test"], [["ref1"], ["ref2"]]), (["test"], [["a test"]]),
          (["a little test"], [["a test"]]), (["", "", ""], [["a b c d e"], ["f"], ["g h"]]),
          (["am I am a character sequence"], [["I am a symbol string sequence a a"]])]
scored = []
for hypotheses, references in cases:
    entry = {"hypotheses": hypotheses, "references": references}
    for name, effective in (("corpus", False), ("effective_order", True)):
        score = BLEU(effective_order=effective).corpus_score(hypotheses, [list(r) for r in zip(*references)])
        entry[name] = score.score
    entry.update(precisions=score.precisions, brevity_penalty=score.bp, hypothesis_length=score.sys_len,
                 reference_length=score.ref_len)
    scored.append(entry)
output.write_text(json.dumps({"tokens": tokens, "cases": scored}, indent=1) + "\n")
print(f"{output}: {len(tokens)} lines, {len(scored)} cases")
