"""AdaLoRA against the real PEFT, through an allocation.

  python peft_adalora.py make [--out tests/fixtures]     makes peft_adalora and peft_adalora_cut (after peft_fixtures.py)
  python peft_adalora.py check --finetune PATH           `finetune` makes the same runs; PEFT opens what it saved, with our logits

peft_adalora is an adapter before training, with the runs that PEFT makes of it (runs.json): losses and penalties in fp32 and fp64,
the ranks that are kept, and the tensors at the end. peft_adalora_cut is what PEFT saves then, with its rank_pattern.
"""

import argparse
import json
import tempfile
from pathlib import Path

from peers_common import (
    FIXTURES,
    fresh,
    relative,
    save_tensors,
    sum_loss,
    supervised,
    torch,
    train,
    write_json,
)
from peft import AdaLoraConfig, get_peft_model
from peft_fixtures import load, reference
from peft_runs import as_flags
from peft_runs import run as execute
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

torch.set_num_threads(1)

STEPS, OF_STEP = 24, 3
OPTIONS = dict(
    learning_rate=2e-2,
    adam_beta1=0.9,
    adam_beta2=0.95,
    adam_epsilon=1e-8,
    weight_decay=0.01,
    max_grad_norm=1.0,
    lr_scheduler_type="linear",
    warmup_steps=4,
    max_steps=STEPS,
)
BATCHES = [(OF_STEP, 1), (1, OF_STEP)]
SETTINGS = dict(
    target_modules=["c_attn", "c_fc", "mlp.c_proj"],
    bias="lora_only",
    init_r=6,
    target_r=3,
    lora_alpha=12,
    tinit=3,
    tfinal=5,
    deltaT=2,
    beta1=0.8,
    beta2=0.7,
    orth_reg_weight=0.4,
    total_step=STEPS,
)


def make_adapter(base, folder, seed, cut=False, **settings):
    """None of the tensors is at its initial value, and the triplets of a matrix matter differently. `cut` keeps some of them only, as
    after an allocation."""
    torch.manual_seed(seed)
    model = get_peft_model(GPT2LMHeadModel.from_pretrained(base), AdaLoraConfig(task_type="CAUSAL_LM", **settings))
    model.peft_config["default"].base_model_name_or_path = "base"
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                p.copy_(0.2 * torch.randn_like(p))
            elif ".lora_E." in name:
                p.copy_(torch.randn_like(p))
            elif p.requires_grad:  # a bias
                p.copy_(p + 0.05 * torch.randn_like(p))
    if cut:
        values = [name for name, _ in model.base_model.model.named_parameters() if ".lora_E." in name]
        model.peft_config["default"].rank_pattern = {k: (torch.rand(settings["init_r"]) < 0.6).tolist() for k in values}
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    return counts(model)


def train_adalora(model, rows, options):
    """`train` with PEFT's own penalty and, after each update, its allocation as its documentation does it. The penalty counts once a
    step, as for one batch. Also returns penalties, how many triplets are kept after each step, and which in the end."""
    config = model.peft_config["default"]
    batch, accumulation = options["per_device_train_batch_size"], options["gradient_accumulation_steps"]
    config.orth_reg_weight /= accumulation
    tokens = [supervised(rows[i : i + batch * accumulation]) for i in range(0, len(rows), batch * accumulation)]
    bare, whole, kept = [], [], []

    def own_loss(logits, labels, **_):  # Transformers' would round fp64 to fp32
        loss = sum_loss(logits, labels) / tokens[len(bare) // accumulation]
        bare.append(loss.item())
        return loss

    def step_loss(ids, mask, labels, _):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        whole.append(loss.item())
        return loss

    def before_zero_grad(step):
        model.base_model.update_and_allocate(step)
        kept.append(config.rank_pattern and sum(map(sum, config.rank_pattern.values())))

    model.base_model.model.loss_function = own_loss
    curve = train(model, rows, options, step_loss=step_loss, before_zero_grad=before_zero_grad)
    config.orth_reg_weight *= accumulation
    of_steps = lambda values: [sum(values[i : i + accumulation]) for i in range(0, len(values), accumulation)]
    curve |= {"loss": of_steps(bare), "penalty": [a - b for a, b in zip(of_steps(whole), of_steps(bare))], "kept": kept}
    return curve | {"rank_pattern": {k.removesuffix(".default"): v for k, v in (config.rank_pattern or {}).items()}}


def all_triplets(model):
    """What is trained, by saved keys, with the triplets that a saved adapter leaves out."""
    return {k.replace(".default", ""): v.detach().clone() for k, v in model.named_parameters() if v.requires_grad}


def counts(model):
    """PEFT's line; PEFT counts the rank at the start, a constant of each layer, as a parameter too."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for name, p in model.named_parameters() if ".ranknum." not in name)
    return f"trainable params: {trained:,d} || all params: {total:,d} || trainable%: {100 * trained / total:.4f}"


def make(args):
    base = args.out / "peft_base"
    rows = [json.loads(line) for line in (args.out / "peft_data.jsonl").read_text().splitlines()][: STEPS * OF_STEP]
    folder, cut = fresh(args.out / "peft_adalora"), fresh(args.out / "peft_adalora_cut")
    line = make_adapter(base, folder, 31, **SETTINGS)
    save_tensors(folder / "reference.safetensors", reference(base, folder, rows[:3]))
    runs, ends = [], []
    for batch, accumulation in BATCHES:
        options = {**OPTIONS, "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        single = train_adalora(load(base, folder, torch.float32), rows, options)
        model = load(base, folder, torch.float64)
        double = train_adalora(model, rows, options)
        assert single["rank_pattern"] == double["rank_pattern"] and single["kept"] == double["kept"]
        ends.append(all_triplets(model))
        runs.append(
            {"options": options}
            | {key: double[key] for key in ("learning_rate", "kept", "rank_pattern")}
            | {f"{key}_{name}": r[key] for key in ("loss", "penalty", "grad_norm") for name, r in (("fp32", single), ("fp64", double))}
        )
    for key, value in ends[0].items():
        assert relative(ends[1][key], value) < 1e-6, key  # k micro-batches are one batch
    ranks = {k: sum(v) for k, v in runs[0]["rank_pattern"].items()}
    assert len(set(ranks.values())) > 2, ranks
    save_tensors(folder / "final.safetensors", ends[0])
    write_json(folder / "runs.json", {"trainable": line, "runs": runs})

    model.float().save_pretrained(cut, save_embedding_layers=False)
    (cut / "README.md").unlink(missing_ok=True)
    save_tensors(cut / "reference.safetensors", reference(base, cut, rows[:3]))
    write_json(cut / "runs.json", {"trainable": counts(load(base, cut, torch.float32))})
    trained = model.double().eval()(input_ids=torch.tensor([rows[0]["input_ids"]])).logits
    again = load(base, cut, torch.float64).eval()(input_ids=torch.tensor([rows[0]["input_ids"]])).logits
    assert relative(again, trained) < 1e-6
    apart = max(abs(a - b) / b for a, b in zip(runs[0]["loss_fp32"], runs[0]["loss_fp64"]))
    print(f"{line} | loss {double['loss'][0]:.4f} -> {double['loss'][-1]:.4f}, fp32 and fp64 within {apart:.1e}; kept {ranks}")
    print("triplets kept", runs[0]["kept"], "penalty", double["penalty"][0], "->", double["penalty"][-1])


def check(args):
    fixture, base = FIXTURES / "peft_adalora", FIXTURES / "peft_base"
    evaluate = args.evaluate or args.finetune.parent / "evaluate"
    for reference in json.loads((fixture / "runs.json").read_text())["runs"]:
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary)
            out, metrics, ids = place / "out", place / "metrics.jsonl", place / "ids.json"
            given = ["--model", base, "--init-adapter", fixture, "--data", FIXTURES / "peft_data.jsonl", "--no-shuffle", "--threads", 1]
            outputs = ["--output", out, "--log-file", metrics, "--logging-steps", 1]
            execute([args.finetune, *given, *outputs, *as_flags(reference["options"])], place / "finetune.log")
            lines = [line for line in map(json.loads, metrics.read_text().splitlines()) if "loss" in line]
            error = lambda key: max(abs(l[key] - r) / r for l, r in zip(lines, reference[f"{key}_fp64"], strict=True))
            errors = {key: error(key) for key in ("loss", "penalty", "grad_norm")}
            kept = json.loads((out / "adapter_config.json").read_text())["rank_pattern"]
            assert kept == reference["rank_pattern"], kept

            rows = [json.loads(line)["input_ids"] for line in (FIXTURES / "peft_data.jsonl").read_text().splitlines()[:4]]
            ids.write_text(json.dumps(rows))
            given = ["--model", base, "--adapter", out, "--tokens", ids, "--logits", place / "logits.safetensors"]
            execute([evaluate, *given], place / "evaluate.log")
            ours, model = load_file(place / "logits.safetensors"), load(base, out, torch.float64).eval()
            with torch.no_grad():
                theirs = [model(input_ids=torch.tensor([row])).logits[0] for row in rows]
            errors["logits in PEFT"] = max(relative(ours[f"logits.{i}"], logits) for i, logits in enumerate(theirs))
        print(f"the same ranks kept; largest errors {({k: f'{v:.1e}' for k, v in errors.items()})}")
        assert max(errors.values()) < 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    made = commands.add_parser("make")
    made.add_argument("--out", type=Path, default=FIXTURES)
    made.set_defaults(run=make)
    checked = commands.add_parser("check")
    checked.add_argument("--finetune", type=Path, required=True)
    checked.add_argument("--evaluate", type=Path, help="default: beside finetune")
    checked.set_defaults(run=check)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
