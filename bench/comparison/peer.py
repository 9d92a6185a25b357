"""The peers, run in an environment of their own: PyTorch with PEFT, Transformers' generate, Hugging Face tokenizers.
Prints one line of JSON."""

import argparse
import json
import os
import time

# How PyTorch computes: its default, and what users turn on to make it faster.
SETTINGS = ("fp32", "medium", "autocast", "bf16")


def prepared(a):
    """torch, and the model in the setting's type."""
    import torch
    from transformers import GPT2LMHeadModel

    torch.set_num_threads(a.threads)
    if a.setting == "medium":
        torch.set_float32_matmul_precision("medium")
    dtype = torch.bfloat16 if a.setting == "bf16" else torch.float32
    return torch, GPT2LMHeadModel.from_pretrained(a.model, dtype=dtype)


def step(a):
    """Training steps of a LoRA on c_attn and c_proj, on the rows in their order."""
    torch, model = prepared(a)
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=a.r, lora_alpha=2 * a.r, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, lora)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.0)
    with open(a.data) as file:
        rows = [json.loads(line)["input_ids"] for line in file]
    ids = torch.tensor(rows)
    with open(a.log, "w", buffering=1) as log:
        for number in range(a.steps):
            batch = ids[[(number * a.batch + i) % len(rows) for i in range(a.batch)]]
            with torch.autocast("cpu", torch.bfloat16, enabled=a.setting == "autocast"):
                loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            print(json.dumps({"loss": loss.item()}), file=log)
    return {}


def decode(a):
    """Greedy tokens behind a prompt, with the cache that generate keeps."""
    torch, model = prepared(a)
    model.eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    prompt = torch.tensor([json.loads(a.prompt)])
    mask = torch.ones_like(prompt)
    took = {}
    with torch.inference_mode():
        for tokens in (1, a.tokens):
            began = time.monotonic()
            out = model.generate(
                prompt, attention_mask=mask, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens
            )
            took[tokens] = time.monotonic() - began
            assert out.shape[1] == prompt.shape[1] + tokens
    return {"seconds": [(took[a.tokens] - took[1]) / (a.tokens - 1)] if a.tokens > 1 else [took[1]]}


def tokenizer(a):
    """A text as a whole and line by line, on one thread: seconds at best, and how many tokens there are."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    from tokenizers import Tokenizer

    began = time.monotonic()
    made = Tokenizer.from_file(os.path.join(a.tokenizer, "tokenizer.json"))
    result = {"load": time.monotonic() - began}
    with open(a.text, newline="", encoding="utf-8") as file:
        text = file.read()
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    for name, parts in (("text", [text]), ("lines", lines)):
        best = None
        for _ in range(a.repeats):
            began = time.monotonic()
            encoded = made.encode_batch_fast(parts, add_special_tokens=False)
            took = time.monotonic() - began
            best = took if best is None else min(best, took)
        result[name] = {
            "mb_per_second": len(text.encode()) / 1e6 / best,
            "tokens": sum(len(e.ids) for e in encoded),
        }
    return result


def versions(a):
    """The versions of what is compared with."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "peft", "tokenizers")}


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("what", choices=["step", "decode", "tokenizer", "versions"])
parser.add_argument("--model")
parser.add_argument("--setting", choices=SETTINGS, default="fp32")
parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
parser.add_argument("--data")
parser.add_argument("--batch", type=int, default=1)
parser.add_argument("--steps", type=int, default=100_000)
parser.add_argument("--log", help="file that gets a line of JSON after each step")
parser.add_argument("--r", type=int, default=8)
parser.add_argument("--prompt", help="token ids as JSON")
parser.add_argument("--tokens", type=int, default=128)
parser.add_argument("--tokenizer", help="directory with tokenizer.json")
parser.add_argument("--text")
parser.add_argument("--repeats", type=int, default=20)
options = parser.parse_args()
print(json.dumps(globals()[options.what](options)))
