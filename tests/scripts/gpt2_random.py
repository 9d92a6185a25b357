"""Writes a GPT-2 of any shape with random weights in bf16, tensor by tensor, for measurements: by default GPT-2 XL (1.56 billion parameters, 3.1 GB).

The file is made by hand, since a model of this size need not fit into memory; biases are zero and norms one, as in a new model.
"""

import argparse
import json
import struct
from pathlib import Path

from peers_common import GPT2Config, fresh, torch


def shapes(c):
    inner = c.n_inner or 4 * c.n_embd
    yield "transformer.wte.weight", (c.vocab_size, c.n_embd)
    yield "transformer.wpe.weight", (c.n_positions, c.n_embd)
    for i in range(c.n_layer):
        h = f"transformer.h.{i}"
        for layer, (n_in, n_out) in {
            "attn.c_attn": (c.n_embd, 3 * c.n_embd),
            "attn.c_proj": (c.n_embd, c.n_embd),
            "mlp.c_fc": (c.n_embd, inner),
            "mlp.c_proj": (inner, c.n_embd),
        }.items():
            yield f"{h}.{layer}.weight", (n_in, n_out)
            yield f"{h}.{layer}.bias", (n_out,)
        for norm in ("ln_1", "ln_2"):
            yield f"{h}.{norm}.weight", (c.n_embd,)
            yield f"{h}.{norm}.bias", (c.n_embd,)
    yield "transformer.ln_f.weight", (c.n_embd,)
    yield "transformer.ln_f.bias", (c.n_embd,)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    for name, value in dict(n_layer=48, n_embd=1600, n_head=25, vocab_size=50257, n_positions=1024).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    args = parser.parse_args()
    config = GPT2Config(**{k: v for k, v in vars(args).items() if k != "out"}, architectures=["GPT2LMHeadModel"], dtype="bfloat16")
    config.save_pretrained(fresh(args.out))
    torch.manual_seed(1)
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes(config):
        begin, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(args.out / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes(config):
            values = 0.02 * torch.randn(shape) if len(shape) == 2 else torch.full(shape, float(name.endswith("weight")))
            out.write(values.bfloat16().view(torch.int16).numpy().tobytes())


if __name__ == "__main__":
    main()
