"""GPT-2 in NF4 with Transformers and bitsandbytes: makes tests/fixtures/quant_gpt2*, or checks a directory that `quantize` wrote."""

import argparse
import json
from pathlib import Path

import bitsandbytes.functional as bnb
import bitsandbytes.nn.modules as bnb_modules
from peers_common import FIXTURES, GPT2LMHeadModel, fresh, relative, save_tensors, small_gpt2, torch
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig

bnb_modules.has_avx512bf16 = lambda: False  # where a CPU has these instructions, bitsandbytes multiplies bf16 in fp32 models, too

# What is quantized how: the type in which the file is loaded, and whether scales are quantized, too.
MODELS = {
    "quant_gpt2_nf4": (torch.float32, False),
    "quant_gpt2_nested": (torch.bfloat16, True),
    "quant_gpt2_bf16": (torch.bfloat16, False),
}


def in_fp64(model):
    """The same model, decoded, in fp64 and with plain layers."""
    config = type(model.config)(**{k: v for k, v in model.config.to_dict().items() if k != "quantization_config"})
    plain = GPT2LMHeadModel(config).double()
    state = {}
    for name, p in model.named_parameters():
        quantized = getattr(p, "quant_state", None)
        state[name] = (bnb.dequantize_4bit(p.data, quantized).T if quantized else p).double()
    plain.load_state_dict(state, strict=False)
    return plain.eval()


def make(options):
    base = options.output / "quant_gpt2"
    small_gpt2(7, n_layer=1, n_embd=64, n_head=2, n_inner=128, vocab_size=48, n_positions=16).save_pretrained(fresh(base))
    ids = torch.randint(0, 48, (2, 11), generator=torch.Generator().manual_seed(3))
    for name, (dtype, nested) in MODELS.items():
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=nested)
        model = GPT2LMHeadModel.from_pretrained(base, dtype=dtype, quantization_config=config).eval()
        model.save_pretrained(fresh(options.output / name))
        with torch.no_grad():
            logits = in_fp64(model)(ids).logits
            if dtype == torch.float32:
                assert relative(model(ids).logits, logits) < 1e-5
        save_tensors(options.output / name / "reference.safetensors", {"input_ids": ids, "logits": logits})
    for path in options.output.glob("quant_gpt2*/generation_config.json"):
        path.unlink()


def check(options):
    """Transformers loads the directory and must give the logits that `evaluate --tokens TOKENS --logits LOGITS` gave."""
    model = GPT2LMHeadModel.from_pretrained(options.model).eval()
    quantized = [name for name, p in model.named_parameters() if getattr(p, "quant_state", None)]
    ours = load_file(options.logits)
    worst = 0.0
    for i, ids in enumerate(json.loads(options.tokens.read_text())):
        with torch.no_grad():
            worst = max(worst, relative(ours[f"logits.{i}"], model(torch.tensor([ids])).logits[0]))
    print(f"{len(quantized)} matrices in NF4; logits differ by {worst:.1e} of the largest")
    raise SystemExit(0 if quantized and worst < options.tolerance else 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("make")
    command.add_argument("--output", type=Path, default=FIXTURES)
    command.set_defaults(run=make)
    command = commands.add_parser("check", help=check.__doc__)
    for name in ("model", "tokens", "logits"):
        command.add_argument(f"--{name}", type=Path, required=True)
    command.add_argument("--tolerance", type=float, default=1e-5)
    command.set_defaults(run=check)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
