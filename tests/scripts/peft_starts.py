"""Makes tests/fixtures/peft_starts.safetensors: how PEFT starts PiSSA and EVA on tests/fixtures/peft_base, and what a PiSSA
adapter computes after its factors moved.

Per layer `<path>`: `pissa.<path>.a`, `.b` (up to signs), `pissa.<path>.residual` ([in, out], W - sBA), `eva.<path>.a` (up to
signs); `eva.ids`; `eva.ranks`, in the order of the layers; `moved.<path>.a`, `.b`, and the `logits` of `ids` with them.
Run: python peft_starts.py [--out tests/fixtures]
"""

import argparse
from pathlib import Path

from peers_common import FIXTURES, save_tensors, torch
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from transformers import GPT2LMHeadModel

torch.set_num_threads(1)

SETTINGS = dict(r=3, lora_alpha=5, target_modules=["c_attn", "c_proj"], task_type="CAUSAL_LM")


def adapted(**more):
    torch.manual_seed(11)
    base = GPT2LMHeadModel.from_pretrained(FIXTURES / "peft_base")
    return get_peft_model(base, LoraConfig(**SETTINGS, **more)).eval()


def layers(model):
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            yield name.removeprefix("base_model.model."), module


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FIXTURES)
    out = parser.parse_args().out
    tensors = {}

    pissa = adapted(init_lora_weights="pissa")
    generator = torch.Generator().manual_seed(3)
    for path, module in layers(pissa):
        tensors[f"pissa.{path}.a"] = module.lora_A["default"].weight.detach().clone()
        tensors[f"pissa.{path}.b"] = module.lora_B["default"].weight.detach().clone()
        tensors[f"pissa.{path}.residual"] = module.base_layer.weight.detach().clone()
        for which, factor in (("a", module.lora_A["default"]), ("b", module.lora_B["default"])):
            factor.weight.data += 0.1 * torch.randn(factor.weight.shape, generator=generator)
            tensors[f"moved.{path}.{which}"] = factor.weight.detach().clone()
    ids = torch.randint(0, 48, (2, 7), generator=generator)
    tensors["ids"] = ids
    with torch.no_grad():
        tensors["logits"] = pissa(ids).logits

    eva = adapted(init_lora_weights="eva", eva_config=EvaConfig(rho=2.0, tau=0.99))
    ids = torch.randint(0, 48, (8, 20), generator=generator)
    tensors["eva.ids"] = ids
    batch = {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}
    initialize_lora_eva_weights(eva, dataloader=[batch], show_progress_bar=False)
    found = {path: module.lora_A["default"].weight.detach().clone() for path, module in layers(eva)}
    names = [path for path, _ in layers(pissa)]
    tensors["eva.ranks"] = torch.tensor([found[path].shape[0] if path in found else 0 for path in names])
    for path, a in found.items():
        tensors[f"eva.{path}.a"] = a
    print(dict(zip(names, tensors["eva.ranks"].tolist())), eva.peft_config["default"].alpha_pattern)
    save_tensors(out / "peft_starts.safetensors", tensors)


if __name__ == "__main__":
    main()
