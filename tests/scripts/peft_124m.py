"""GPT-2 124M with random weights, fine-tuned on real instructions by PEFT and by `finetune`: do the losses agree, and what does it cost?

  python peft_124m.py make  --out DIR [--data ../shared/data] [--threads 2] [--steps 50] [--fp64]
  python peft_124m.py check --out DIR --finetune PATH [--extra "--threads 2"]

make writes DIR/base (500 MB, with GPT-2's tokenizer), DIR/adapter (r 8, alpha 16, c_attn, PEFT's usual initial values), DIR/data.jsonl
(Alpaca prompts masked, response and end of text supervised, 256 tokens at most) and DIR/peft_fp32.json: losses, gradient norms, seconds of
each step, seconds from start to the first step, peak memory. With --fp64 also DIR/peft_fp64.json (twice the time; only its losses matter).
check fails where a loss is off by more than 1e-3, and prints both sides' time and memory. Times mean something on a quiet machine only.
"""

import argparse
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

start = time.perf_counter()
from peers_common import SHARED_DATA, fresh, torch, train, trainable_line, write_json, write_jsonl  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from peft_runs import as_flags, run  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel  # noqa: E402

LONGEST, END_OF_TEXT = 256, 50256
OPTIONS = dict(
    learning_rate=2e-4,
    lr_scheduler_type="constant",
    warmup_steps=0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    adam_beta1=0.9,
    adam_beta2=0.999,
    adam_epsilon=1e-8,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=1,
)
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n"
    "{instruction}\n\n### Response:\n"
)


def peak_memory_mb():
    """VmHWM, as our examples report theirs; getrusage would count the process that this one was forked from."""
    return (
        next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        * 1024
        / 1e6
    )


def tokenized(record, tokenizer):
    """Prompt and response are tokenized each for itself, so that the border between them is a border between tokens."""
    prompt = tokenizer.encode((WITH_INPUT if record["input"] else WITHOUT_INPUT).format(**record)).ids
    response = tokenizer.encode(record["output"]).ids + [END_OF_TEXT]
    return {"input_ids": (prompt + response)[:LONGEST], "labels": ([-100] * len(prompt) + response)[:LONGEST]}


def make(args):
    from tokenizers import Tokenizer

    out = fresh(args.out)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    model.save_pretrained(out / "base")
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        shutil.copyfile(args.data / "gpt2" / name, out / "base" / name)
    adapted = get_peft_model(
        model, LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    )
    adapted.peft_config["default"].base_model_name_or_path = str(out / "base")
    adapted.save_pretrained(out / "adapter", save_embedding_layers=False)
    print(trainable_line(adapted))

    tokenizer = Tokenizer.from_file(str(out / "base" / "tokenizer.json"))
    records = json.loads((args.data / "instruct" / "alpaca-format-1100.json").read_text())
    rows = [tokenized(record, tokenizer) for record in records]
    rows = [row for row in rows if any(label != -100 for label in row["labels"])]
    needed = args.steps * OPTIONS["per_device_train_batch_size"]
    assert len(rows) >= needed, f"{needed} rows needed, {len(rows)} there"
    write_jsonl(out / "data.jsonl", rows[:needed])

    for dtype in ["fp32"] + ["fp64"] * args.fp64:  # each in a process of its own: peak memory is the process's
        subprocess.run(
            [sys.executable, __file__, "train", "--out", str(out), "--dtype", dtype, "--threads", str(args.threads)], check=True
        )


def train_by_peft(args):
    torch.set_num_threads(args.threads)
    dtype = {"fp32": torch.float32, "fp64": torch.float64}[args.dtype]
    rows = [json.loads(line) for line in (args.out / "data.jsonl").read_text().splitlines()]
    options = {**OPTIONS, "max_steps": len(rows) // OPTIONS["per_device_train_batch_size"]}
    model = PeftModel.from_pretrained(
        GPT2LMHeadModel.from_pretrained(args.out / "base"), args.out / "adapter", is_trainable=True
    ).to(dtype)
    clock = [time.perf_counter()]
    ready = clock[0] - start

    def report(step, curve):
        clock.append(time.perf_counter())
        if step % 10 == 9:
            print(f"{args.dtype} step {step + 1}: loss {curve['loss'][-1]:.6f}, {clock[-1] - clock[-2]:.2f} s", flush=True)

    curve = train(model, rows, options, report)
    seconds = [b - a for a, b in zip(clock, clock[1:])]
    write_json(
        args.out / f"peft_{args.dtype}.json",
        {
            "options": options,
            "threads": args.threads,
            **curve,
            "seconds": seconds,
            "median_seconds": statistics.median(seconds),
            "start_to_first_step_done_seconds": ready + seconds[0],
            "supervised_tokens": sum(label != -100 for row in rows for label in row["labels"][1:]),
            "tokens": sum(len(row["input_ids"]) for row in rows),
            "peak_memory_mb": peak_memory_mb(),
        },
    )


def check(args):
    peft = json.loads((args.out / "peft_fp32.json").read_text())
    double = args.out / "peft_fp64.json"
    expected = json.loads(double.read_text())["loss"] if double.exists() else peft["loss"]
    ours = fresh(args.out / "ours")
    begin = time.perf_counter()
    run(
        [
            args.finetune,
            "--model",
            args.out / "base",
            "--init-adapter",
            args.out / "adapter",
            "--data",
            args.out / "data.jsonl",
            "--no-shuffle",
            "--output",
            ours / "out",
            "--log-file",
            ours / "metrics.jsonl",
            "--base-dropout",
            "none",
            "--logging-steps",
            1,
            *as_flags(peft["options"]),
            *shlex.split(args.extra),
        ],
        ours / "finetune.log",
    )
    whole = time.perf_counter() - begin
    lines = [line for line in map(json.loads, (ours / "metrics.jsonl").read_text().splitlines()) if "loss" in line]
    if len(lines) != len(expected):
        sys.exit(f"metrics.jsonl has {len(lines)} steps, expected {len(expected)}")
    errors = [abs(line["loss"] - loss) / loss for line, loss in zip(lines, expected)]
    norms = [abs(line["grad_norm"] - norm) / norm for line, norm in zip(lines, peft["grad_norm"])]
    print(
        f"losses: {lines[0]['loss']:.6f} -> {lines[-1]['loss']:.6f}, PEFT {expected[0]:.6f} -> {expected[-1]:.6f}; largest relative error {max(errors):.1e} "
        f"(step {errors.index(max(errors)) + 1}); gradient norms within {max(norms):.1e}"
    )
    print(
        f"median step: {statistics.median(line['seconds'] for line in lines):.3f} s, PEFT {peft['median_seconds']:.3f} s with {peft['threads']} threads; "
        f"whole program: {whole:.1f} s, PEFT {peft['start_to_first_step_done_seconds'] + sum(peft['seconds'][1:]):.1f} s"
    )
    print(f"peak memory: {max(line['peak_memory_mb'] for line in lines):.0f} MB, PEFT {peft['peak_memory_mb']:.0f} MB")
    sys.exit(not max(errors) <= 1e-3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    made = commands.add_parser("make")
    made.add_argument("--data", type=Path, default=SHARED_DATA)
    made.add_argument("--steps", type=int, default=50)
    made.add_argument("--fp64", action="store_true")
    made.set_defaults(run=make)
    trained = commands.add_parser("train", help="PEFT's side of make, in a process of its own")
    trained.add_argument("--dtype", choices=["fp32", "fp64"], default="fp32")
    trained.set_defaults(run=train_by_peft)
    for command in (made, trained):
        command.add_argument("--threads", type=int, default=2)
    checked = commands.add_parser("check")
    checked.add_argument("--finetune", type=Path, required=True)
    checked.add_argument("--extra", default="", help="more options for finetune")
    checked.set_defaults(run=check)
    for command in (made, trained, checked):
        command.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
