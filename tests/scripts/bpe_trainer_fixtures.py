"""Writes what the BpeTrainer of Hugging Face tokenizers learns from small texts: tests/fixtures/bpe_trainer.json.

    python tests/scripts/bpe_trainer_fixtures.py [--output tests/fixtures]

A list of cases, each with `texts`, the options `vocab_size`, `min_frequency` and `special_tokens`, and what comes of them:
`tokens` by id, `merges` by rank ("left right"), and `ids` of the first text.

    python tests/scripts/bpe_trainer_fixtures.py --check DIRECTORY TEXT

says whether Transformers and tokenizers open the tokenizer files of a directory, and give the same ids for a text file by
vocab.json with merges.txt as by tokenizer.json.
"""

import argparse
import json
import random
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

PROSE = """Mia's dog didn't bark, and they'd say it wasn't Mia's. In 1999 there were 1,234 dogs; in 2024 there're 56,789!
The lower the newest river, the wider the newer bridge: low, lower, lowest, new, newer, newest, wide, wider, widest.

    Indented   text,\twith tabs\r\nand odd line ends.  Two spaces. Émile naïvely ate crème brûlée at 3½ o'clock — “très bien”, he said…
\u4e2d\u6587\u6587\u5b57 and \u4e2d\u6587, \u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac, \U0001f642\U0001f642\U0001f469\u200d\U0001f467 aaaaaaaaaaaa aaaa aa a baaaab.
"""  # fmt: skip


def random_words(seed, letters, count):
    rng = random.Random(seed)
    return " ".join("".join(rng.choice(letters) for _ in range(1 + int(rng.random() * 9))) for _ in range(count))


def cases():
    yield [PROSE, PROSE.upper(), "the end"], 420, 2, ["<|endoftext|>"]
    yield [PROSE], 5000, 0, []  # until nothing is left to merge
    yield [random_words(1, "abc", 220)], 700, 0, ["<pad>", "<|endoftext|>"]  # many ways to the same token
    yield [random_words(2, "ab", 150), random_words(3, "abcdef", 150)], 600, 3, ["<|endoftext|>"]
    yield [""], 300, 0, ["<|endoftext|>"]


def train(texts, vocab_size, min_frequency, special_tokens):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=special_tokens,
                            initial_alphabet=alphabet, show_progress=False),
    )  # fmt: skip
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = sorted(model["vocab"].items(), key=lambda item: item[1])
    assert [id for _, id in vocabulary] == list(range(len(vocabulary)))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return {"texts": texts, "vocab_size": vocab_size, "min_frequency": min_frequency, "special_tokens": special_tokens,
            "tokens": [token for token, _ in vocabulary], "merges": merges, "ids": tokenizer.encode(texts[0]).ids}  # fmt: skip


def check(directory, path):
    from transformers import AutoTokenizer, GPT2TokenizerFast

    text = Path(path).read_text(encoding="utf-8")
    ids = Tokenizer.from_file(f"{directory}/tokenizer.json").encode(text).ids
    assert AutoTokenizer.from_pretrained(directory).encode(text) == ids
    parts = Tokenizer(models.BPE.from_file(f"{directory}/vocab.json", f"{directory}/merges.txt"))
    parts.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    parts.add_special_tokens(["<|endoftext|>"])
    assert parts.encode(text).ids == ids
    assert GPT2TokenizerFast.from_pretrained(directory).eos_token_id == parts.token_to_id("<|endoftext|>")
    print(f"{len(ids)} ids, the same each way")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parents[1] / "fixtures")
    parser.add_argument("--check", nargs=2, metavar=("DIRECTORY", "TEXT"))
    arguments = parser.parse_args()
    if arguments.check:
        check(*arguments.check)
        return
    text = json.dumps([train(*case) for case in cases()], indent=None, separators=(",", ":")) + "\n"
    (arguments.output / "bpe_trainer.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
