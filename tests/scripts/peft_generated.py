"""Generated adapters of every method: what PEFT computes with them, and whether it computes the same with ours.

  python peft_generated.py make [--out tests/fixtures/adapters_generated] [--seed 0]
  python peft_generated.py check DIR [--out tests/fixtures/adapters_generated]

make draws settings for each method on two tiny random GPT-2s, one with a tied head, and writes base/, untied/, configs.json (the name, the
base and PEFT's adapter_config.json of each), adapters.safetensors (PEFT's files in one, their keys behind the name) and logits.safetensors.
check opens in PEFT what lowrank saved (DIR/NAME/, and DIR/NAME-new/ for adapters that started here, with the logits that lowrank computed
in DIR/NAME/logits.safetensors) and compares logits:
  LOWRANK_TEST_OUTPUT=/tmp/saved build/tests/test_adapters_generated && python peft_generated.py check /tmp/saved
"""

import argparse
import json
import random
import sys
import tempfile
import warnings
from pathlib import Path

from peers_common import FIXTURES, fresh, relative, save_tensors, small_gpt2, torch
from peft_adalora import make_adapter as make_adalora
from peft_fixtures import load, make_adapter
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

torch.set_num_threads(1)
warnings.filterwarnings("ignore")
VOCABULARY, POSITIONS = 24, 8
COUNTS = {"lora": 13, "rslora": 7, "dora": 11, "lora_bias": 6, "embedding": 9, "vera": 12, "ia3": 12, "adalora": 10, "dora_embedding": 9}
TARGETS = [
    ["c_attn"],
    ["c_attn", "c_proj"],
    ["attn.c_proj", "c_fc"],
    "all-linear",
    r".*\.(c_attn|c_fc)",
    ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"],
]


def draw(rng, method):
    """The settings of one adapter, and its base."""
    base = rng.choice(["base", "base", "untied"])
    targets = rng.choice(TARGETS)
    settings = dict(target_modules=targets)
    names = isinstance(targets, list) and len(targets[0]) < 12
    if rng.random() < 0.3:
        settings["modules_to_save"] = rng.choice([["ln_f"], ["ln_1"], ["h.0.mlp.c_fc"]])
    if method == "ia3":
        if rng.random() < 0.3:
            del settings["target_modules"]
        elif isinstance(targets, list):
            settings["feedforward_modules"] = rng.sample(targets, rng.randint(0, len(targets)))
        else:
            settings = dict(target_modules=r".*\.(c_attn|c_fc)", feedforward_modules=rng.choice([r".*c_fc", r".*\.0\..*"]))
        if names and rng.random() < 0.3:
            settings["exclude_modules"] = rng.choice([["h.1.attn.c_proj"], r".*\.1\.mlp\..*"])
        return base, dict(method="ia3", **settings)
    settings["r"] = rng.choice([1, 2, 3, 4])
    if names and rng.random() < 0.3:
        settings["layers_to_transform"] = rng.choice([[1], 0, [0, 1]])
        if rng.random() < 0.5:
            settings["layers_pattern"] = rng.choice(["h", ["h"]])
    only = "vera_only" if method == "vera" else "lora_only"
    settings["bias"] = rng.choice(["none", "all", only])
    if method == "vera":
        settings |= dict(d_initial=rng.choice([0.1, 1.0]), projection_prng_key=rng.choice([0, 7]), vera_dropout=rng.choice([0.0, 0.25]))
        return base, dict(method="vera", **settings)
    if method == "adalora":
        init_r = settings.pop("r") + 1
        if names and rng.random() < 0.3:
            settings["exclude_modules"] = rng.choice([["h.1.attn.c_proj"], r".*\.1\.mlp\..*"])
        return base, settings | dict(
            init_r=init_r,
            target_r=rng.randint(1, init_r),
            tinit=rng.choice([0, 5]),
            tfinal=rng.choice([0, 7]),
            deltaT=rng.choice([1, 10]),
            beta1=rng.choice([0.85, 0.5]),
            beta2=rng.choice([0.85, 0.9]),
            orth_reg_weight=rng.choice([0.0, 0.5]),
            total_step=rng.choice([13, 100]),
            lora_alpha=rng.choice([1, 8, 32]),
            lora_dropout=rng.choice([0.0, 0.1]),
            init_lora_weights=rng.choice([True, False]),
        )
    settings |= dict(
        lora_alpha=rng.choice([1, 2, 3, 8, 16]),
        lora_dropout=rng.choice([0.0, 0.1]),
        use_rslora=method == "rslora" or rng.random() < 0.3,
        use_dora=method.startswith("dora"),
        lora_bias=method == "lora_bias",
        init_lora_weights=rng.choice([True, False] if method == "lora_bias" else [True, False, "gaussian", "orthogonal"]),
    )
    if settings["init_lora_weights"] == "orthogonal":
        settings["r"] = rng.choice([2, 4])
    elif rng.random() < 0.35:
        settings["rank_pattern"] = rng.choice([{"c_attn": 5}, {r"h\.0\..*": 1, r"mlp\.c_proj": 2}, {"^transformer.h.1.attn.c_attn": 3}])
    if rng.random() < 0.35:
        settings["alpha_pattern"] = rng.choice([{"attn.c_proj": 6, "c_attn": 2}, {"c_fc": 5}])
    if names and rng.random() < 0.3:
        settings["exclude_modules"] = rng.choice([["h.1.attn.c_proj"], r".*\.1\.mlp\..*"])
    if method.endswith("embedding"):
        settings["target_modules"] = rng.choice([["wte"], ["wpe"], ["wte", "wpe", "c_attn"], ["wte", "c_fc"], r".*\.(wpe|c_attn)"])
        if settings["init_lora_weights"] == "orthogonal":
            settings["init_lora_weights"] = True  # PEFT has no such start for embeddings
        for key in ("layers_to_transform", "layers_pattern", "exclude_modules"):
            settings.pop(key, None)
    if base == "untied" and method == "lora" and rng.random() < 0.4:
        settings["target_modules"] = ["c_attn", "lm_head"]
        settings.pop("layers_to_transform", None), settings.pop("layers_pattern", None), settings.pop("exclude_modules", None)
    return base, settings


def logits_of(base, adapter, ids):
    with torch.no_grad():
        return load(base, adapter, torch.float64).eval()(input_ids=ids).logits


def make(args):
    out, rng = fresh(args.out), random.Random(args.seed)
    for name, tied in (("base", True), ("untied", False)):
        small_gpt2(
            5, n_embd=12, n_head=2, vocab_size=VOCABULARY, n_positions=POSITIONS, n_inner=20, tie_word_embeddings=tied
        ).save_pretrained(out / name)
        (out / name / "generation_config.json").unlink()
    ids = torch.tensor([[rng.randrange(VOCABULARY) for _ in range(6)]])
    configs, tensors, logits = [], {}, {"input_ids": ids}
    with torch.no_grad():
        plain = {b: GPT2LMHeadModel.from_pretrained(out / b, dtype=torch.float64)(input_ids=ids).logits for b in ("base", "untied")}
    for method, count in COUNTS.items():
        for number in range(count):
            name = f"{method}-{number:02}"
            base, settings = draw(rng, method)
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                seed = args.seed * 1000 + len(configs)
                if method == "adalora":
                    make_adalora(out / base, folder, seed, cut=number % 3 > 0, **settings)
                else:
                    make_adapter(out / base, folder, seed, **settings)
                logits[name] = logits_of(out / base, folder, ids)
                tensors |= {f"{name}/{k}": v for k, v in load_file(folder / "adapter_model.safetensors").items()}
                config = json.loads((folder / "adapter_config.json").read_text())
            configs.append({"name": name, "base": base, "config": config})
            changed = relative(logits[name], plain[base])
            print(f"{name:14} {base:7} changes the logits by {changed:.2f}: {settings}")
            assert changed > 1e-2, "the adapter must matter"
    (out / "configs.json").write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in configs) + "\n]\n")
    save_tensors(out / "adapters.safetensors", tensors)
    save_tensors(out / "logits.safetensors", logits)
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print(f"{len(configs)} adapters, {size / 1000:.0f} kB")


def check(args):
    bases = {c["name"]: c["base"] for c in json.loads((args.out / "configs.json").read_text())}
    ids = load_file(args.out / "logits.safetensors")["input_ids"]
    worst, count = 0.0, 0
    for folder in sorted(args.directory.iterdir()):
        if not (folder / "adapter_config.json").exists():
            continue
        theirs = logits_of(args.out / bases[folder.name.removesuffix("-new")], folder, ids)
        error = relative(load_file(folder / "logits.safetensors")["logits"], theirs)
        worst, count = max(worst, error), count + 1
        if error > 1e-5:
            print(f"{folder.name}: logits differ by {error:.1e}")
    print(f"{count} adapters of ours in PEFT: logits differ by at most {worst:.1e}")
    sys.exit(worst > 1e-5 or count == 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    made = commands.add_parser("make")
    made.add_argument("--seed", type=int, default=0)
    made.set_defaults(run=make)
    checked = commands.add_parser("check")
    checked.add_argument("directory", type=Path)
    checked.set_defaults(run=check)
    for command in (made, checked):
        command.add_argument("--out", type=Path, default=FIXTURES / "adapters_generated")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
