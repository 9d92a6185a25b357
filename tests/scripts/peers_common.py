"""What the scripts that run the real peers (Transformers, PEFT) share: small random models, losses as we define them, files."""

import contextlib
import io
import json
import os
import random
import shutil
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel, get_scheduler  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

transformers_logging.disable_progress_bar()
warnings.filterwarnings("ignore", category=FutureWarning)

SCRIPTS = Path(__file__).resolve().parent
FIXTURES = SCRIPTS.parent / "fixtures"
SHARED_DATA = SCRIPTS.parent.parent.parent / "shared" / "data"


def fresh(folder):
    """An empty folder at this path: what lay there goes."""
    folder = Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_json(path, value):
    Path(path).write_text(json.dumps(value, indent=1) + "\n")


def write_jsonl(path, rows):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def save_tensors(path, tensors, metadata=None):
    """Doubles become fp32, so that what was computed in fp64 is a reference rounded once."""
    ready = {k: (v.float() if v.dtype == torch.float64 else v).detach().contiguous().clone() for k, v in tensors.items()}
    save_file(ready, str(path), metadata=metadata or {"format": "pt"})  # one key: safetensors writes several in a random order


def small_gpt2(seed, **config):
    """A random GPT-2 whose biases, norms and matrices are all far from their usual initial values, so that none can be forgotten."""
    defaults = dict(
        n_layer=2,
        n_embd=32,
        n_head=2,
        vocab_size=96,
        n_positions=32,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**{**defaults, **config}))
    width = model.config.n_embd
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".ln_" in name and name.endswith("weight"):
                p.copy_(1 + 0.2 * torch.randn_like(p))
            elif p.ndim == 1:
                p.copy_(0.1 * torch.randn_like(p))
            elif "wte" in name or "wpe" in name or "lm_head" in name:
                p.copy_(0.3 * torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) * width**-0.5)
    return model.eval()


def sum_loss(logits, labels):
    """Sum of the cross-entropy over supervised tokens, in the type of the logits (Transformers' own loss would round fp64 to fp32)."""
    following = F.pad(labels[:, 1:], (0, 1), value=-100)  # shifting the labels copies less than shifting the logits
    return F.cross_entropy(logits.flatten(0, 1), following.flatten(), ignore_index=-100, reduction="sum")


def supervised(rows):
    return sum(sum(label != -100 for label in row["labels"][1:]) for row in rows)


def random_rows(seed, count, vocab, shortest, longest):
    """Pre-tokenized rows with a little structure to learn; some supervise everything, others mask a prompt."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        length = rng.randint(shortest, longest)
        step = rng.randint(1, 5)
        ids = [rng.randrange(vocab)]
        while len(ids) < length:
            ids.append((ids[-1] + step) % vocab if rng.random() < 0.8 else rng.randrange(vocab))
        prompt = 0 if i % 3 == 0 else rng.randint(1, length - 2)
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return rows


def pad(rows):
    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows])
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows])
    labels = torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in rows])
    return ids, mask, labels


def train(model, rows, options, after_step=None, step_loss=None, before_zero_grad=None):
    """Fine-tunes the trainable parameters as `finetune` does: rows in their order, one pass; the loss of a step is the mean over the
    supervised tokens of all its micro-batches; gradients are clipped, then torch's AdamW, then Transformers' schedule.
    Returns per step: loss, gradient norm before clipping, learning rate. `step_loss(ids, mask, labels, tokens)` is a micro-batch's part
    of the loss; `before_zero_grad(step)` comes after the optimizer's step, with the gradients still there."""
    step_loss = step_loss or (
        lambda ids, mask, labels, tokens: sum_loss(model(input_ids=ids, attention_mask=mask).logits, labels) / tokens
    )
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable,
        lr=options["learning_rate"],
        betas=(options["adam_beta1"], options["adam_beta2"]),
        eps=options["adam_epsilon"],
        weight_decay=options["weight_decay"],
    )
    scheduler = get_scheduler(options["lr_scheduler_type"], optimizer, options["warmup_steps"], options["max_steps"])
    batch, accumulation = options["per_device_train_batch_size"], options["gradient_accumulation_steps"]
    curve = {"loss": [], "grad_norm": [], "learning_rate": []}
    model.train()
    for step in range(options["max_steps"]):
        of_step = rows[step * batch * accumulation : (step + 1) * batch * accumulation]
        assert len(of_step) == batch * accumulation, "the data must hold exactly one pass"
        tokens, total = supervised(of_step), 0.0
        for start in range(0, len(of_step), batch):
            ids, mask, labels = pad(of_step[start : start + batch])
            loss = step_loss(ids, mask, labels, tokens)
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(
            trainable, options["max_grad_norm"] or float("inf")
        )  # 0 turns clipping off, as in Trainer
        curve["loss"].append(total)
        curve["grad_norm"].append(norm.item())
        curve["learning_rate"].append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
        if before_zero_grad:
            before_zero_grad(step)
        optimizer.zero_grad()
        if after_step:
            after_step(step, curve)
    model.eval()
    return curve


def trainable_line(model):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        model.print_trainable_parameters()
    return out.getvalue().strip()


def relative(a, b):
    """max|a - b| / max|b|, the error of DESIGN section 7."""
    a, b = a.double(), b.double()
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-300)).item()
