"""Makes tests/fixtures/gpt2_*: small random GPT-2s in Transformers' files, with reference logits, loss and gradients.

The reference is computed in fp64 from the weights as they lie in the file, and saved rounded to fp32.
Run: python gpt2_fixtures.py [--out tests/fixtures]
"""

import argparse
import json
from pathlib import Path

from peers_common import FIXTURES, fresh, relative, save_tensors, small_gpt2, sum_loss, torch
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

torch.set_num_threads(1)

# One entry a folder: what of GPT2Config differs, how it is saved.
MODELS = {
    "tied": dict(config=dict(n_head=4)),
    "untied": dict(config=dict(activation_function="gelu", tie_word_embeddings=False, n_embd=40, vocab_size=101, n_positions=64)),
    "relu": dict(config=dict(n_head=1, activation_function="relu", layer_norm_epsilon=1e-3)),
    "noprefix": dict(config=dict(n_head=4, n_positions=48), save="openai"),
    "masks": dict(config=dict(activation_function="gelu", n_positions=24), save="masks"),
    "sharded": dict(config=dict(n_layer=3, n_head=4, activation_function="gelu_pytorch_tanh", n_embd=36), save="sharded"),
    "inner": dict(config=dict(n_inner=56)),
    "bf16": dict(config=dict(n_head=4), dtype=torch.bfloat16),
    "fp16": dict(config=dict(tie_word_embeddings=False), dtype=torch.float16),
    "inverse_layer": dict(config=dict(n_layer=3, scale_attn_by_inverse_layer_idx=True, n_inner=32)),
    "unscaled": dict(config=dict(n_head=4, scale_attn_weights=False, n_inner=32)),
}


def save(model, how, folder):
    if how == "sharded":
        model.save_pretrained(folder, max_shard_size="60KB")
        return
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    n = model.config.n_positions
    causal = torch.tril(torch.ones(n, n)).view(1, 1, n, n)
    if how == "openai":
        # As the published gpt2: no prefix, fp32 mask buffers, the short config.json of its time (dropouts 0.1, absent keys, unknown keys).
        tensors = {k.removeprefix("transformer."): v for k, v in tensors.items()}
        tensors |= {f"h.{i}.attn.bias": causal.clone() for i in range(model.config.n_layer)}
        kept = (
            "activation_function",
            "architectures",
            "bos_token_id",
            "eos_token_id",
            "initializer_range",
            "layer_norm_epsilon",
            "model_type",
            "n_embd",
            "n_head",
            "n_layer",
            "n_positions",
            "vocab_size",
        )
        config = {k: v for k, v in json.loads((folder / "config.json").read_text()).items() if k in kept}
        config |= {
            "attn_pdrop": 0.1,
            "embd_pdrop": 0.1,
            "resid_pdrop": 0.1,
            "n_ctx": n,
            "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    elif how == "masks":
        # As checkpoints of Transformers 2 to 4: uint8 masks, a scalar masked_bias, and the tied head written a second time.
        for i in range(model.config.n_layer):
            tensors[f"transformer.h.{i}.attn.bias"] = causal.to(torch.uint8)
            tensors[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_tensors(path, tensors)


def make(name, spec, seed, folder):
    model = small_gpt2(seed, **spec["config"])
    if "dtype" in spec:
        model = model.to(spec["dtype"])
    save(model, spec.get("save"), folder)
    (folder / "generation_config.json").unlink(missing_ok=True)

    # Read back what was written: the reference belongs to the file.
    exact = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float64).eval()
    exact.config._attn_implementation = "eager"
    for k, v in model.state_dict().items():
        assert torch.equal(exact.state_dict()[k], v.double()), k
    vocab, length = model.config.vocab_size, min(20, model.config.n_positions)
    generator = torch.Generator().manual_seed(seed + 1000)
    ids = torch.randint(0, vocab, (2, length), generator=generator)
    ids[0, 3] = ids[0, 7]  # a repeated id adds two rows of gradient
    labels = ids.clone()
    labels[0, :6] = -100
    labels[1, 9:12] = -100
    labels[1, -2:] = -100
    run = exact(input_ids=ids, output_hidden_states=True)
    count = (labels[:, 1:] != -100).sum()
    loss = sum_loss(run.logits, labels) / count
    loss.backward()
    reference = {"input_ids": ids, "labels": labels, "logits": run.logits, "loss": loss.reshape(1)}
    reference |= {f"hidden.{i}": h for i, h in enumerate(run.hidden_states)}
    reference |= {f"grad.{k}": p.grad for k, p in exact.named_parameters()}
    save_tensors(folder / "reference.safetensors", reference)

    fp32 = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    own = fp32(input_ids=ids, labels=labels)
    own.loss.backward()
    worst = max(relative(q.grad, p.grad) for p, q in zip(exact.parameters(), fp32.parameters()))
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(
        f"{folder.name:20} loss {loss.item():.6f} (Transformers fp32 {own.loss.item():.6f}), logits of fp32 within "
        f"{relative(own.logits, run.logits):.1e}, gradients {worst:.1e}, {size / 1000:.0f} kB"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FIXTURES)
    out = parser.parse_args().out
    for seed, (name, spec) in enumerate(MODELS.items()):
        make(name, spec, seed, fresh(out / f"gpt2_{name}"))


if __name__ == "__main__":
    main()
