"""Writes what Hugging Face tokenizers say about many texts, as hashes: tests/fixtures/text_hashes.txt and the small tokenizer
tests/fixtures/text_tiny_bpe (vocab.json, merges.txt) with its tokenizer.json in tests/fixtures/text_tiny_json.

    python tests/scripts/text_fixtures.py [--data ../shared/data] [--output tests/fixtures]

Each line of text_hashes.txt is "kind name count hash". Kinds, where X is gpt2 (the vocabulary in the data) or tiny:
    X.file          ids of a file of the data, as a whole; name is its path
    invalid.file    a file that is not UTF-8: count is the offset of the first bad byte, hash that of the bytes of the text
                    with U+FFFD in place of malformed parts
    X.code_points   ids of the contexts of a block of 4096 code points; name is the block's number
    pieces.code_points   the same texts, the byte lengths of their pre-tokenized pieces
    X.random, pieces.random   ids and piece lengths of a block of pseudo-random strings
    X.decode        the UTF-8 bytes of the decoded texts of a block of pseudo-random id lists
The hash is 64-bit FNV-1a over 32-bit values (bytes count as values); every text ends with the value 0xffffffff.
tests/text/parity.hpp makes the same texts.
"""

import argparse
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["text", "instruct", "nlg", "tokenizer-tests", "bleu", "json/test_transform", "models/slm4096"]
SUFFIXES = {".txt", ".json", ".jsonl", ".csv", ".py", ".js", ".inp", ".out", ".bin", ".en"}
FRAGMENTS = [" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "\u0085", "\u200b", "'", "'s", "'re", "'ll", "'S", "don't",
             "the", " and", "1", "23", "\u00bd", "\u00e9", "e\u0301", "\u4e2d\u6587", "\U0001f642", "\U0001f469\u200d\U0001f467",
             "!", "...", "<|endoftext|>", "<|endof", "\u212a", "\u017f"]  # fmt: skip
BLOCKS, STRINGS = 32, 128


class Hash:
    def __init__(self):
        self.count, self.value = 0, 0xCBF29CE484222325

    def add(self, values):
        value = self.value
        for v in values:
            value = ((value ^ v) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
        self.value = ((value ^ 0xFFFFFFFF) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
        self.count += len(values)


class Random:
    """splitmix64"""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        mask = 0xFFFFFFFFFFFFFFFF
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return (z ^ (z >> 31)) % n


def random_string(random):
    text = ""
    for _ in range(1 + random.below(24)):
        kind = random.below(8)
        if kind < 5:
            text += FRAGMENTS[random.below(len(FRAGMENTS))]
        elif kind < 7:
            code = random.below((0x3000, 0xF800, 0x10F800)[random.below(3)])
            text += chr(code if code < 0xD800 else code + 0x800)
        else:
            letters = 1 + random.below(7)
            text += "".join("etaonis"[random.below(letters)] for _ in range(1 + random.below(120)))
    return text


def contexts(code):
    c = chr(code)
    return [c, "a" + c + "b", " " + c, c + c, "1" + c, c + " ", "'" + c, "!" + c + "!"]


def block_of_code_points(block):
    codes = (c for c in range(block * 4096, block * 4096 + 4096) if not 0xD800 <= c < 0xE000)
    return [text for c in codes for text in contexts(c)]


def block_of_strings(block):
    random = Random(block)
    return [random_string(random) for _ in range(STRINGS)]


def block_of_ids(block, vocabulary):
    random = Random(1000 + block)
    return [[random.below(vocabulary) for _ in range(1 + random.below(12))] for _ in range(STRINGS)]


def train_tiny():
    """A tokenizer of 256 bytes, <|endoftext|> and merges, from text made of a few words."""
    random = Random(7)
    words = ("the and of to in that is was he for it with as his on be at by had not are but from or have an they which one "
             "you were her all she there would their we him been has when who will more no if out so said don't it's I'll "
             "we've tokens 2024 100 2048 naïve café Ärger 中文 中国 привет 🙂").split()  # fmt: skip
    lines = [" ".join(words[random.below(len(words))] for _ in range(12)) + (".", "!\n\n", "  \n")[random.below(3)] for _ in range(400)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
    return tokenizer


def save_tiny(tokenizer, output):
    folder = output / "text_tiny_bpe"
    folder.mkdir(parents=True, exist_ok=True)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(model["vocab"])
    vocabulary["<|endoftext|>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    merges = "".join(" ".join(pair) + "\n" for pair in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    with_tokens = Tokenizer.from_str(tokenizer.to_str())
    with_tokens.add_special_tokens([AddedToken("<|user|>", normalized=False), AddedToken("<|user|>2", normalized=False)])
    with_tokens.add_tokens([AddedToken("don't be", normalized=False), AddedToken("étage")])
    folder = output / "text_tiny_json"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(with_tokens.to_str()), ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    return with_tokens


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--output", type=Path, default=ROOT / "tests/fixtures")
    options = parser.parse_args()
    lines = []

    def record(kind, name, hashed):
        lines.append(f"{kind} {name} {hashed.count} {hashed.value:016x}\n")

    def encode(tokenizer, texts):
        hashed = Hash()
        for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
            hashed.add(encoding.ids)
        return hashed

    pieces_of = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str

    def split(texts):
        hashed = Hash()
        for text in texts:
            hashed.add([len(piece) for piece, _ in pieces_of(text)])
        return hashed

    tiny = train_tiny()
    extended = save_tiny(tiny, options.output)
    gpt2 = Tokenizer.from_file(str(options.data / "gpt2/tokenizer.json"))

    for path in sorted(p for folder in FOLDERS for p in (options.data / folder).rglob("*") if p.suffix in SUFFIXES):
        name = path.relative_to(options.data)
        try:
            record("gpt2.file", name, encode(gpt2, [path.read_bytes().decode("utf-8")]))
        except UnicodeDecodeError as error:
            hashed = Hash()
            hashed.add(path.read_bytes().decode("utf-8", errors="replace").encode("utf-8"))
            hashed.count = error.start
            record("invalid.file", name, hashed)
    for block in range(0x110000 // 4096):
        texts = block_of_code_points(block)
        record("pieces.code_points", block, split(texts))
        record("gpt2.code_points", block, encode(gpt2, texts))
    for block in range(BLOCKS):
        texts = block_of_strings(block)
        record("pieces.random", block, split(texts))
        for name, tokenizer in (("gpt2", gpt2), ("tiny", tiny), ("extended", extended)):
            record(name + ".random", block, encode(tokenizer, texts))
            hashed = Hash()
            for ids in block_of_ids(block, tokenizer.get_vocab_size()):
                hashed.add(tokenizer.decode(ids, skip_special_tokens=False).encode("utf-8"))
            record(name + ".decode", block, hashed)
    (options.output / "text_hashes.txt").write_text("".join(lines))


main()
