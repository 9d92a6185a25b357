"""What Hugging Face tokenizers make of the data files, in numbers: tests/fixtures/data_tokenized.json.

For each file the rows, tokens and supervised tokens, and one FNV-1a hash over all ids and labels (int32, little-endian; a
row's ids, then its labels), so that the test compares every token without a copy of the data in the repository.

usage: data_fixtures.py [shared data folder] [fixture to write]
"""
import csv
import json
import pathlib
import struct
import sys

from tokenizers import Tokenizer

here = pathlib.Path(__file__).resolve().parent
data = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "../../../shared/data"
out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else here / "../fixtures/data_tokenized.json"

# Stanford Alpaca, train.py
WITH_INPUT = ("Below is an instruction that describes a task, paired with an input that provides further context. "
              "Write a response that appropriately completes the request.\n\n"
              "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n")
WITHOUT_INPUT = ("Below is an instruction that describes a task. "
                 "Write a response that appropriately completes the request.\n\n"
                 "### Instruction:\n{instruction}\n\n### Response:\n")
EOS = 50256

tokenizer = Tokenizer.from_file(str(data / "gpt2/tokenizer.json"))


def encode(text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def instruction_row(instruction, context, output):
    prompt = (WITH_INPUT if context else WITHOUT_INPUT).format_map({"instruction": instruction, "input": context})
    head, tail = encode(prompt), encode(output) + [EOS]
    return head + tail, [-100] * len(head) + tail


def document_rows(text, length):
    ids = encode(text) + [EOS]
    blocks = [ids[i:i + length] for i in range(0, len(ids), length)]
    return [(block, block) for block in blocks]


def join(pieces):
    """Pieces (text, supervised), None for the end-of-sequence token, tokenized one by one."""
    ids, labels = [], []
    for text, supervised in pieces:
        part = [EOS] if text is None else encode(text)
        ids += part
        labels += part if supervised else [-100] * len(part)
    return ids, labels


def chatml_row(turns):
    pieces = []
    for role, text in turns:
        pieces += [(f"<|im_start|>{role}\n", False), (text, role == "assistant"),
                   ("<|im_end|>", role == "assistant"), ("\n", False)]
    return join(pieces[:-1] + [(None, True)])


def heading_row(turns):
    """The alpaca template's form for conversations."""
    pieces = []
    for role, text in turns:
        if role == "assistant":
            pieces += [("### Response:\n", False), (text, True), (None, True), ("\n\n", False)]
        else:
            pieces += [("### Instruction:\n", False), (text, False), ("\n\n", False)]
    return join(pieces[:-1])


def completion_row(prompt, completion):
    return join([(prompt, False), (completion, True), (None, True)])


def summary(file, length, rows, columns="", template="alpaca", separator=""):
    rows = [(ids[:length], labels[:length]) for ids, labels in rows]
    rows = [row for row in rows if any(label != -100 for label in row[1][1:])]
    value = 0xCBF29CE484222325
    for ids, labels in rows:
        for byte in struct.pack(f"<{2 * len(ids)}i", *ids, *labels):
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return {"file": file, "columns": columns, "template": template, "separator": separator, "max_seq_length": length, "rows": len(rows),
            "tokens": sum(len(ids) for ids, _ in rows),
            "supervised": sum(label != -100 for _, labels in rows for label in labels[1:]), "fnv1a": f"{value:016x}"}


def lines(name):
    return [json.loads(line) for line in (data / name).read_text(encoding="utf-8").split("\n") if line.strip()]


alpaca = json.loads((data / "instruct/alpaca-format-1100.json").read_text(encoding="utf-8"))
alpaca = [instruction_row(r["instruction"], r["input"], r["output"]) for r in alpaca]
gsm8k = [instruction_row(r["question"], "", r["answer"]) for r in lines("instruct/gsm8k-train.jsonl")]
sharegpt = json.loads((data / "instruct/sharegpt-500.json").read_text(encoding="utf-8"))
roles = {"human": "user", "gpt": "assistant", "system": "system"}
sharegpt = [[(roles[turn["from"]], turn["value"]) for turn in record["conversations"]] for record in sharegpt]
tasks = [instruction_row(r["instruction"], i["input"], i["output"])
         for r in lines("instruct/seed_tasks.jsonl") for i in r["instances"]]
with open(data / "nlg/e2e-devset.csv", encoding="utf-8", newline="") as file:
    e2e = [completion_row(r["mr"], r["ref"]) for r in csv.DictReader(file)]
with open(data / "nlg/e2e-lora-valid.txt", encoding="utf-8", newline="\n") as file:
    pairs = [line.rstrip("\r\n").partition("||") for line in file]
results = [
    summary("instruct/sharegpt-500.json", 1024, [chatml_row(turns) for turns in sharegpt], template="chatml"),
    summary("instruct/sharegpt-500.json", 128, [heading_row(turns) for turns in sharegpt]),
    summary("instruct/seed_tasks.jsonl", 512, tasks),
    summary("nlg/e2e-devset.csv", 256, e2e, "prompt=mr,completion=ref"),
    summary("nlg/e2e-lora-valid.txt", 256, [completion_row(a + b, c) for a, b, c in pairs], separator="||"),
    summary("instruct/alpaca-format-1100.json", 1024, alpaca),
    summary("instruct/alpaca-format-1100.json", 60, alpaca),
    summary("instruct/gsm8k-train.jsonl", 160, gsm8k, "instruction=question,output=answer"),
    summary("instruct/wikisql-valid.jsonl", 64,
            [row for r in lines("instruct/wikisql-valid.jsonl") for row in document_rows(r["text"], 64)]),
    summary("text/tinystories_1000.json", 128,
            [row for text in json.loads((data / "text/tinystories_1000.json").read_text(encoding="utf-8"))
             for row in document_rows(text, 128)]),
] + [
    summary(name, 256, document_rows((data / name).read_text(encoding="utf-8-sig"), 256))
    for name in ("text/wikitext2-valid.txt", "text/wizard-of-oz.txt")
]
out.write_text("[\n" + ",\n".join(" " + json.dumps(result) for result in results) + "\n]\n")
