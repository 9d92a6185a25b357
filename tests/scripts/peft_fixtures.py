"""Makes tests/fixtures/peft_*: a small base model, adapters written by PEFT on it, their logits, gradients and a 20-step training run.

Logits, gradients and the final adapter are computed in fp64 and saved rounded to fp32; the loss curve is there in both.
Run: PYTHONHASHSEED=0 python peft_fixtures.py [--out tests/fixtures]
"""

import argparse
from pathlib import Path

from peers_common import (
    FIXTURES,
    fresh,
    pad,
    random_rows,
    relative,
    save_tensors,
    small_gpt2,
    sum_loss,
    supervised,
    torch,
    train,
    trainable_line,
    write_json,
    write_jsonl,
)
from peft import IA3Config, LoraConfig, PeftModel, VeraConfig, get_peft_model, get_peft_model_state_dict
from transformers import GPT2LMHeadModel

torch.set_num_threads(1)

OPTIONS = dict(
    learning_rate=5e-3,
    adam_beta1=0.9,
    adam_beta2=0.95,
    adam_epsilon=1e-8,
    weight_decay=0.1,
    max_grad_norm=1.0,
    lr_scheduler_type="linear",
    warmup_steps=4,
    max_steps=20,
)
BATCHES = [(4, 1), (2, 2)]  # rows of a micro-batch, micro-batches of a step

ALL = ["c_attn", "c_proj", "c_fc"]
METHODS = {
    "lora": dict(target_modules=["c_attn"]),
    "default_targets": dict(),
    "rslora": dict(target_modules=["c_attn", "c_fc"], use_rslora=True),
    "dora": dict(target_modules=["c_attn", "c_proj"], use_dora=True),
    "rsdora": dict(target_modules="all-linear", use_dora=True, use_rslora=True, bias="lora_only"),
    "bias_all": dict(target_modules=["c_attn"], bias="all"),
    "bias_lora_only": dict(target_modules=["c_attn", "c_proj"], bias="lora_only"),
    "patterns": dict(
        target_modules=ALL,
        # The first match wins, and PEFT saves keys sorted: only a pattern already in that order survives its own file.
        rank_pattern={r"attn\.c_proj": 6, "c_fc": 2, "c_proj": 3},
        alpha_pattern={"c_attn": 5, "h.0.mlp.c_fc": 12},
    ),
    "rslora_patterns": dict(target_modules=ALL, use_rslora=True, rank_pattern={"c_attn": 9}, alpha_pattern={r"mlp\.c_proj": 3}),
    "regex": dict(target_modules=r"transformer\.h\.\d+\.(attn\.c_proj|mlp\.c_fc)"),
    "all_linear": dict(target_modules="all-linear"),
    "full_paths": dict(target_modules=["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"]),
    "layers": dict(target_modules=["c_attn", "c_fc"], layers_to_transform=[1]),
    "exclude": dict(target_modules=["c_attn", "c_proj"], exclude_modules=["mlp.c_proj"]),
    "lora_bias": dict(target_modules=["c_attn"], lora_bias=True),
    "modules_to_save": dict(target_modules=["c_attn"], modules_to_save=["ln_f"]),
    "embedding": dict(target_modules=["wte", "wpe", "c_attn"], use_rslora=True),
    "lora_fa": dict(target_modules=["c_attn", "c_proj"], freeze_a=True),
    "vera": dict(method="vera", target_modules="all-linear", r=6),
    "vera_only": dict(method="vera", bias="vera_only", layers_to_transform=[1], r=5),
    "ia3": dict(method="ia3"),
    "ia3_inputs": dict(method="ia3", target_modules=["c_attn", "c_fc"], feedforward_modules=["c_fc"]),
    "dora_wte": dict(target_modules=["wte"], use_dora=True, fan_in_fan_out=False),
    "rsdora_embedding": dict(target_modules=["wte", "wpe", "c_attn"], use_dora=True, use_rslora=True),
}
CONFIGS = {"lora": LoraConfig, "vera": VeraConfig, "ia3": IA3Config}


def make_base(folder):
    small_gpt2(7, n_embd=24, n_head=2, vocab_size=48, n_positions=24).save_pretrained(folder)
    (folder / "generation_config.json").unlink()


def load(base, adapter, dtype, freeze_a=False):
    """The adapted model, every parameter in dtype, without the base's dropout. LoRA-FA's A are constants."""
    model = GPT2LMHeadModel.from_pretrained(base, dtype=torch.float32, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = PeftModel.from_pretrained(model, adapter, is_trainable=True).to(dtype)
    for name, p in model.named_parameters():
        if freeze_a and ("lora_A" in name or "lora_embedding_A" in name):
            p.requires_grad_(False)
    return model


def make_adapter(base, folder, seed, method="lora", **settings):
    """An adapter none of whose tensors is at its initial value: B ≠ 0, magnitudes that are not the norm, biases that moved."""
    torch.manual_seed(seed)
    if method == "lora":
        settings = dict(r=4, lora_alpha=8, init_lora_weights=False) | settings
    config = CONFIGS[method](**dict(task_type="CAUSAL_LM", fan_in_fan_out=True) | settings)
    model = get_peft_model(GPT2LMHeadModel.from_pretrained(base), config)
    model.peft_config["default"].base_model_name_or_path = "base"
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_embedding" in name:
                p.copy_(0.3 * torch.randn_like(p))
            elif "vera_lambda" in name:
                p.copy_((0.1 if name.endswith("d.default") else 1) * (1 + 0.3 * torch.randn_like(p)))
            elif "ia3_l" in name:
                p.copy_(1 + 0.3 * torch.randn_like(p))
            elif p.requires_grad and p.ndim == 1:
                p.copy_(p * (1 + 0.1 * torch.randn_like(p)) + (0 if "magnitude" in name else 0.05) * torch.randn_like(p))
            elif ".lora_B." in name:
                p.mul_(0.5)
                if settings.get("init_lora_weights") is not False:  # B = 0
                    p.copy_(0.3 * torch.randn_like(p))
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    return trainable_line(model)


def reference(base, adapter, rows, freeze_a=False):
    """Logits with the adapter, gradients of what it trains, and logits after merging it, in fp64."""
    model = load(base, adapter, torch.float64, freeze_a).eval()
    ids, _, labels = pad(rows)  # no attention mask: padding at the end is ordinary causal input here, so every position compares
    logits = model(input_ids=ids).logits
    assert logits.dtype == torch.float64
    loss = sum_loss(logits, labels) / supervised(rows)
    loss.backward()
    parameters = {id(v): k for k, v in state(model, keep_vars=True).items() if v.requires_grad}
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == len(parameters)
    tensors = {"input_ids": ids, "labels": labels, "logits": logits, "loss": loss.reshape(1)}
    tensors |= {f"grad.{parameters[id(p)]}": p.grad for p in trained}
    if any("lora_embedding" in k for k in state(model)):
        merged = logits  # PEFT's merge would change the tied head too
    else:
        merged = model.merge_and_unload()(input_ids=ids).logits
    assert relative(merged, logits) < 1e-12
    without = GPT2LMHeadModel.from_pretrained(base, dtype=torch.float64)(input_ids=ids).logits
    assert relative(without, logits) > 1e-2, "the adapter must matter"
    return tensors | {"merged_logits": merged}


def state(model, keep_vars=False):
    """The tensors that PEFT would save, by their saved keys."""
    return get_peft_model_state_dict(model, state_dict=model.state_dict(keep_vars=keep_vars))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FIXTURES)
    parser.add_argument("--only", help="names of methods, separated by commas, on the base that is there")
    args = parser.parse_args()
    out, base = args.out, args.out / "peft_base"
    if not args.only:
        make_base(fresh(base))
    rows = random_rows(11, OPTIONS["max_steps"] * 4, vocab=48, shortest=4, longest=14)
    write_jsonl(out / "peft_data.jsonl", rows)
    for seed, (name, settings) in enumerate(METHODS.items()):
        if args.only and name not in args.only.split(","):
            continue
        settings = dict(settings)
        freeze_a = settings.pop("freeze_a", False)
        folder = fresh(out / f"peft_{name}")
        line = make_adapter(base, folder, seed, **settings)
        if freeze_a:
            line = trainable_line(load(base, folder, torch.float32, freeze_a))
        save_tensors(folder / "reference.safetensors", reference(base, folder, rows[:3], freeze_a))
        runs, finals = [], []
        for batch, accumulation in BATCHES:
            options = {**OPTIONS, "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
            single = train(load(base, folder, torch.float32, freeze_a), rows, options)
            model = load(base, folder, torch.float64, freeze_a)
            double = train(model, rows, options)
            finals.append({k: v for k, v in state(model, keep_vars=True).items() if v.requires_grad})
            runs.append(
                {
                    "options": options,
                    "learning_rate": double["learning_rate"],
                    "loss_fp32": single["loss"],
                    "loss_fp64": double["loss"],
                    "grad_norm_fp32": single["grad_norm"],
                    "grad_norm_fp64": double["grad_norm"],
                }
            )
        for key, value in finals[0].items():
            assert relative(finals[1][key], value) < 1e-6, key  # k micro-batches are one batch
        save_tensors(folder / "final.safetensors", finals[0])
        write_json(folder / "runs.json", {"trainable": line, "runs": runs})
        apart = max(abs(a - b) / b for a, b in zip(runs[0]["loss_fp32"], runs[0]["loss_fp64"]))
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(
            f"{folder.name:22} {line} | loss {double['loss'][0]:.4f} -> {double['loss'][-1]:.4f}, fp32 and fp64 within {apart:.1e}, {size / 1000:.0f} kB"
        )


if __name__ == "__main__":
    main()
