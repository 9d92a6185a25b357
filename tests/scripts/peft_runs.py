"""Generated fine-tuning runs: what PEFT computes, and whether `finetune` computes the same.

  python peft_runs.py make  --out DIR [--count 48] [--seed 0]       needs torch, transformers, peft
  python peft_runs.py check --out DIR --finetune PATH [--evaluate PATH] [--only 3,17] [--extra "--threads 1"]

make writes DIR/NN/ with base/, adapter/ (PEFT's, random), data.jsonl, settings.json, curve.json (PEFT's losses in fp32 and fp64) and
final.safetensors (logits after the run). check runs our examples on each folder and compares
- the loss of every step where PEFT's own fp32 and fp64 agree within 1e-6, at relative 1e-4, and its gradient norm, where these agree
  within 1e-4, at 1e-3;
- the learning rate of every step, at 1e-6 of the highest;
- our `evaluate --logits` with what PEFT computes from the adapter we saved, at 2e-5 of the largest logit, and, where the whole curve
  is a reference, with PEFT's own logits after training, at 5e-5.
It prints one line a run and exits with 1 if any failed.
"""

import argparse
import json
import random
import shlex
import subprocess
import sys
from pathlib import Path

from peers_common import fresh, random_rows, relative, save_tensors, small_gpt2, torch, train, write_json, write_jsonl
from peft_fixtures import load, make_adapter
from safetensors.torch import load_file

torch.set_num_threads(1)
STEPS = 20
METHODS = ("lora", "rslora", "dora", "vera", "ia3", "lora-fa", "lora_bias", "embedding", "dora_embedding")
AGREE = 1e-6  # PEFT's fp32 against its fp64: where they differ by more, rounding decides and the step is no reference
BOUNDS = {"loss": 1e-4, "norm": 1e-3, "rate": 1e-6, "saved": 2e-5, "trained": 5e-5}


def draw(rng, number):
    """One setting. Methods, accumulation and biases go round so that every pair meets; the rest is drawn."""
    method = METHODS[number % len(METHODS)]
    width, heads = rng.choice([(24, 1), (24, 2), (32, 4), (36, 3), (20, 2)])
    base = dict(
        n_layer=rng.choice([1, 2, 3]),
        n_embd=width,
        n_head=heads,
        n_inner=rng.choice([None, None, 40]),
        vocab_size=rng.choice([40, 57, 80]),
        n_positions=24,
        activation_function=("gelu_new", "gelu", "relu", "gelu_pytorch_tanh")[number // len(METHODS) % 4],
        tie_word_embeddings=rng.random() < 0.6,
        layer_norm_epsilon=rng.choice([1e-5, 1e-5, 1e-6, 1e-3]),
    )
    if rng.random() < 0.5:
        base |= dict(resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1)  # turned off by --base-dropout none
    targets = rng.choice(
        [
            ["c_attn"],
            ["c_proj"],
            ["c_attn", "c_proj"],
            ["c_attn", "c_proj", "c_fc"],
            ["c_fc"],
            ["attn.c_proj", "c_attn"],
            "all-linear",
            r".*\.(c_attn|c_fc)",
            ["transformer.h.0.attn.c_attn", "transformer.h.0.mlp.c_proj"],
        ]
    )
    adapter = dict(
        r=rng.choice([1, 2, 4, 8, 16]),
        lora_alpha=rng.choice([1, 4, 8, 16]),
        target_modules=targets,
        bias=("none", "all", "none", "lora_only", "none")[number % 5],
    )
    if method == "vera":
        del adapter["lora_alpha"]
        adapter |= dict(method="vera", bias=adapter["bias"].replace("lora", "vera"), d_initial=rng.choice([0.1, 1.0]))
    elif method == "ia3":
        adapter = dict(method="ia3", target_modules=targets, feedforward_modules=[])
        if targets == "all-linear":
            del adapter["target_modules"], adapter["feedforward_modules"]  # PEFT's defaults
        elif isinstance(targets, list):
            adapter["feedforward_modules"] = rng.sample(targets, rng.randint(0, len(targets)))
    else:
        adapter |= dict(use_rslora=method == "rslora" or rng.random() < 0.2, use_dora=method.startswith("dora"), lora_bias=method == "lora_bias")
        if rng.random() < 0.3:
            adapter["rank_pattern"] = {"c_attn": rng.choice([3, 5]), r"h\.0\.mlp\.c_fc": 2}
        if rng.random() < 0.3:
            adapter["alpha_pattern"] = {"attn.c_proj": 6, "c_attn": rng.choice([2, 10])}
    if method.endswith("embedding"):
        adapter["target_modules"] = rng.choice([["wte", "c_attn"], ["wpe", "c_fc"], ["wte", "wpe"]])
    names = isinstance(targets, list) and len(targets[0]) < 12 and method not in ("ia3", "embedding", "dora_embedding")
    if base["n_layer"] > 1 and names and rng.random() < 0.25:
        adapter["layers_to_transform"] = [base["n_layer"] - 1]
    schedule = rng.choice(["linear", "cosine", "constant"])
    batch, accumulation = (
        rng.choice([(1, 1), (2, 1), (4, 1), (3, 1)]) if number % 2 else rng.choice([(1, 2), (2, 2), (1, 4), (2, 3)])
    )
    options = dict(
        learning_rate=rng.choice([3e-4, 1e-3, 3e-3, 1e-2]),
        lr_scheduler_type=schedule,
        warmup_steps=0 if schedule == "constant" else rng.choice([0, 1, 3, 6]),
        weight_decay=rng.choice([0.0, 0.0, 0.01, 0.1]),
        max_grad_norm=rng.choice([0.0, 0.3, 1.0, 1.0, 10.0]),
        adam_beta1=rng.choice([0.9, 0.9, 0.8]),
        adam_beta2=rng.choice([0.999, 0.95]),
        adam_epsilon=rng.choice([1e-8, 1e-8, 1e-6]),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=STEPS,
    )
    return {"method": method, "base": base, "adapter": adapter, "options": options}


def logits_of(model, rows):
    with torch.no_grad():
        return {f"logits.{i}": model(input_ids=torch.tensor([ids])).logits[0] for i, ids in enumerate(rows)}


def probes(folder):
    """The first rows of the data, whose logits are compared."""
    return [json.loads(line)["input_ids"] for line in (folder / "data.jsonl").read_text().splitlines()[:4]]


def make_run(folder, setting, seed):
    small_gpt2(seed, **setting["base"]).save_pretrained(folder / "base")
    line = make_adapter(folder / "base", folder / "adapter", seed, **setting["adapter"])
    options = setting["options"]
    count = STEPS * options["per_device_train_batch_size"] * options["gradient_accumulation_steps"]
    rows = random_rows(seed, count, setting["base"]["vocab_size"], shortest=3, longest=24)
    write_jsonl(folder / "data.jsonl", rows)
    curves = {}
    for name, dtype in {"fp32": torch.float32, "fp64": torch.float64}.items():
        model = load(folder / "base", folder / "adapter", dtype, freeze_a=setting["method"] == "lora-fa")
        curve = train(model, rows, options)
        curves |= {f"{k}_{name}": v for k, v in curve.items()}
    save_tensors(folder / "final.safetensors", logits_of(model, probes(folder)))
    write_json(folder / "settings.json", {**setting, "trainable": line})
    write_json(folder / "curve.json", curves)
    return curves


def usable(curves):
    return [abs(a - b) <= AGREE * abs(b) for a, b in zip(curves["loss_fp32"], curves["loss_fp64"])]


def make(args):
    out = fresh(args.out)
    rng = random.Random(args.seed)
    steps = 0
    for number in range(args.count):
        setting = draw(rng, number)
        curves = make_run(fresh(out / f"{number:02}"), setting, args.seed * 1000 + number)
        steps += sum(usable(curves))
        print(
            f"{number:02} {setting['method']:9} loss {curves['loss_fp64'][0]:.4f} -> {curves['loss_fp64'][-1]:.4f}, {sum(usable(curves))} of {STEPS} steps agree",
            flush=True,
        )
    print(f"{args.count} settings; {steps} of {args.count * STEPS} steps are a reference")


def run(command, log):
    with open(log, "w") as out:
        print(shlex.join(map(str, command)), file=out, flush=True)
        code = subprocess.run([str(c) for c in command], stdout=out, stderr=subprocess.STDOUT).returncode
    if code:
        last = Path(log).read_text().strip().splitlines()[-1]
        raise RuntimeError(f"{Path(command[0]).name} exited with {code}: {last} (see {log})")


def as_flags(options):
    return [part for key, value in options.items() for part in ("--" + key.replace("_", "-"), value)]


def check_run(folder, finetune, evaluate, extra):
    """The largest errors of one run, and what is wrong with it."""
    settings = json.loads((folder / "settings.json").read_text())
    options = settings["options"]
    method = ["--method", "lora-fa"] if settings["method"] == "lora-fa" else []  # the file does not say it
    curves = json.loads((folder / "curve.json").read_text())
    ours = fresh(folder / "ours")
    out, metrics = ours / "out", ours / "metrics.jsonl"
    run(
        [
            finetune,
            "--model",
            folder / "base",
            "--init-adapter",
            folder / "adapter",
            "--data",
            folder / "data.jsonl",
            "--no-shuffle",
            "--output",
            out,
            "--log-file",
            metrics,
            "--base-dropout",
            "none",
            "--logging-steps",
            1,
            *as_flags(options),
            *method,
            *extra,
        ],
        ours / "finetune.log",
    )
    lines = [line for line in map(json.loads, metrics.read_text().splitlines()) if "loss" in line]
    if [line["step"] for line in lines] != list(range(1, STEPS + 1)):
        raise RuntimeError(f"metrics.jsonl has steps {[line['step'] for line in lines]}, expected 1 to {STEPS}")
    errors = {
        "loss": 0.0,
        "norm": 0.0,
        "rate": max(abs(line["learning_rate"] - rate) for line, rate in zip(lines, curves["learning_rate_fp64"]))
        / options["learning_rate"],
    }
    for line, good, loss, norm, rounded in zip(
        lines, usable(curves), curves["loss_fp64"], curves["grad_norm_fp64"], curves["grad_norm_fp32"]
    ):
        if good:
            errors["loss"] = max(errors["loss"], abs(line["loss"] - loss) / loss)
            if abs(rounded - norm) <= 100 * AGREE * norm:  # in a run that diverges norms go apart before losses do
                errors["norm"] = max(errors["norm"], abs(line["grad_norm"] - norm) / norm)

    rows = probes(folder)
    (ours / "ids.json").write_text(json.dumps(rows))
    run(
        [
            evaluate,
            "--model",
            folder / "base",
            "--adapter",
            out,
            "--tokens",
            ours / "ids.json",
            "--logits",
            ours / "logits.safetensors",
        ],
        ours / "evaluate.log",
    )
    logits = load_file(ours / "logits.safetensors")
    saved = logits_of(load(folder / "base", out, torch.float64).eval(), rows)
    final = load_file(folder / "final.safetensors")
    errors["saved"] = max(relative(logits[k], v) for k, v in saved.items())
    errors["trained"] = max(relative(logits[k], v) for k, v in final.items()) if all(usable(curves)) else 0.0
    return errors, [k for k, bound in BOUNDS.items() if not errors[k] <= bound]


def check(args):
    evaluate = args.evaluate or args.finetune.parent / "evaluate"
    folders = sorted(f.parent for f in args.out.glob("*/settings.json"))
    if args.only:
        folders = [f for f in folders if f.name in args.only.split(",")]
    if not folders:
        sys.exit(f"no runs in {args.out}: make them first")
    failed, compared = [], 0
    print("run method    steps  " + "".join(f"{k:10}" for k in BOUNDS))
    for folder in folders:
        setting = json.loads((folder / "settings.json").read_text())
        steps = sum(usable(json.loads((folder / "curve.json").read_text())))
        head = f"{folder.name:3} {setting['method']:9} {steps:5}  "
        try:
            errors, wrong = check_run(folder, args.finetune, evaluate, shlex.split(args.extra))
            compared += steps
            print(
                head + "".join(f"{errors[k]:<10.1e}" for k in BOUNDS) + (f"FAILED: {', '.join(wrong)}" if wrong else "ok"),
                flush=True,
            )
        except Exception as error:  # one broken run must not hide the others
            wrong = [str(error)]
            print(head + f"FAILED: {error}", flush=True)
        if wrong:
            failed.append(folder.name)
            print("    " + json.dumps({k: setting[k] for k in ("adapter", "options", "base")}))
    print(
        f"{len(folders) - len(failed)} of {len(folders)} runs pass, {compared} steps compared"
        + (f"; failed: {' '.join(failed)}" if failed else "")
    )
    sys.exit(bool(failed))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    made = commands.add_parser("make")
    made.add_argument("--count", type=int, default=54)
    made.add_argument("--seed", type=int, default=0)
    made.set_defaults(run=make)
    checked = commands.add_parser("check")
    checked.add_argument("--finetune", type=Path, required=True)
    checked.add_argument("--evaluate", type=Path, help="default: beside finetune")
    checked.add_argument("--only", help="names of runs, separated by commas")
    checked.add_argument("--extra", default="", help="more options for finetune")
    checked.set_defaults(run=check)
    for command in (made, checked):
        command.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
