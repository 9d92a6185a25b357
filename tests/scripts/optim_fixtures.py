"""Makes tests/fixtures/optim_*: runs of torch.optim.AdamW with torch's clipping, curves of transformers.get_scheduler, PEFT's LoRA+ groups."""

import argparse
from pathlib import Path

from peers_common import FIXTURES, torch, write_json
from peft import AdaLoraConfig, IA3Config, LoraConfig, VeraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, get_scheduler

STEPS = 20
SHAPES = {"a": (3, 5), "b": (7, 4), "bias": (33,)}
GROUPS = [["a", "bias"], ["b"]]  # the second is LoRA+'s: a learning rate 16 times higher, no weight decay
WITHOUT_GRADIENT = {("b", 0), ("bias", 4), ("b", 11)}  # (parameter, step): grad is None

# The first gradients are large, so that clipping at 1 acts in some steps and not in others.
CASES = {
    "default": dict(lr=1e-3),
    "no_decay": dict(lr=1e-2, weight_decay=0.0),
    "betas": dict(lr=5e-3, betas=(0.3, 0.95), eps=1e-4, weight_decay=0.1),
    "no_momentum": dict(lr=5e-3, betas=(0.0, 0.9), weight_decay=0.1),
    "skips": dict(lr=1e-2, skip=True),
    "groups": dict(lr=1e-3, groups=True, weight_decay=0.05),
    "clip": dict(lr=1e-2, max_norm=1.0),
    "linear": dict(lr=1e-2, max_norm=1.0, schedule="linear", warmup=5, weight_decay=0.1),
    "cosine": dict(lr=1e-2, schedule="cosine", warmup=3, groups=True, skip=True, weight_decay=0.1),
}


def run(dtype, start, gradients, lr, groups=False, skip=False, max_norm=None, schedule="constant", warmup=0, **settings):
    parameters = {name: torch.nn.Parameter(value.to(dtype, copy=True)) for name, value in start.items()}
    if groups:
        first, second = ([parameters[name] for name in group] for group in GROUPS)
        optimizer = torch.optim.AdamW([dict(params=first), dict(params=second, lr=16 * lr, weight_decay=0.0)], lr=lr, **settings)
    else:
        optimizer = torch.optim.AdamW(parameters.values(), lr=lr, **settings)
    scheduler = get_scheduler(schedule, optimizer, num_warmup_steps=warmup, num_training_steps=STEPS)
    out, norms = {}, []
    for step in range(STEPS):
        for name, p in parameters.items():
            p.grad = None if skip and (name, step) in WITHOUT_GRADIENT else gradients[name][step].to(dtype, copy=True)  # clipping writes to it
        if max_norm is not None:
            norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), max_norm).double())
        optimizer.step()
        scheduler.step()
        if step in (0, 1, 4, 9, STEPS - 1):
            out.update({f"{name}.{step}": p.detach().clone() for name, p in parameters.items()})
    for name, p in parameters.items():
        out[f"{name}.exp_avg"] = optimizer.state[p]["exp_avg"]
        out[f"{name}.exp_avg_sq"] = optimizer.state[p]["exp_avg_sq"]
    if norms:
        out["norms"] = torch.stack(norms)
    return out


def adamw(out):
    torch.manual_seed(7)
    start = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    scale = torch.logspace(0, -2, STEPS)
    gradients = {name: torch.stack([torch.randn(shape) * s for s in scale]) for name, shape in SHAPES.items()}
    tensors = {f"start.{name}": value for name, value in start.items()}
    tensors |= {f"gradient.{name}": value for name, value in gradients.items()}
    for case, settings in CASES.items():
        for label, dtype in (("F32", torch.float32), ("F64", torch.float64)):
            tensors |= {f"{case}.{label}.{key}": value for key, value in run(dtype, start, gradients, **settings).items()}
    save_file(tensors, str(out / "optim_adamw.safetensors"), metadata={"format": "pt"})


def schedules(out):
    curves = []
    for kind in ("constant", "constant_with_warmup", "linear", "cosine"):
        for warmup, total in ((0, 10), (4, 10), (10, 10), (3, 1), (1, 25)):
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
            scheduler = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=total)
            factors = []
            for _ in range(total + 4):  # past the end too
                factors.append(scheduler.get_last_lr()[0])
                optimizer.step()
                scheduler.step()
            curves.append({"kind": kind, "warmup_steps": warmup, "total_steps": total, "factors": factors})
    write_json(out / "optim_schedules.json", curves)


def loraplus(out):
    """The learning rate and weight decay of each parameter, by its name in an adapter file."""
    config = dict(n_layer=1, n_embd=8, n_head=2, vocab_size=16, n_positions=8, bos_token_id=0, eos_token_id=0)
    lora = dict(r=2, fan_in_fan_out=True)
    adapters = [
        LoraConfig(target_modules=["c_attn", "wte"], bias="all", modules_to_save=["ln_f"], **lora),
        LoraConfig(target_modules=["c_proj", "wpe"], use_dora=True, lora_bias=False, **lora),
        LoraConfig(target_modules=["c_fc"], lora_bias=True, **lora),
        VeraConfig(target_modules=["c_attn"], r=2, fan_in_fan_out=True),
        IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True),
        AdaLoraConfig(target_modules=["c_attn"], init_r=2, total_step=9, bias="lora_only", fan_in_fan_out=True),
    ]
    parameters = {}
    for adapter in adapters:
        model = get_peft_model(GPT2LMHeadModel(GPT2Config(**config)), adapter)
        optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16, loraplus_weight_decay=0.1)
        names = {id(p): name.replace(".default", "").replace(".modules_to_save", "") for name, p in model.named_parameters()}
        for group in optimizer.param_groups:
            for p in group["params"]:
                parameters[names[id(p)]] = dict(shape=list(p.shape), learning_rate=group["lr"], weight_decay=group["weight_decay"])
    write_json(out / "optim_loraplus.json", dict(sorted(parameters.items())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FIXTURES)
    folder = parser.parse_args().out
    adamw(folder)
    schedules(folder)
    loraplus(folder)
