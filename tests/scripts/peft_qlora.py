"""Makes tests/fixtures/qlora_*: 20 steps of QLoRA by PEFT and bitsandbytes, over an NF4 model and the data of other fixtures.

The runs compute in fp32 on the CPU, and PEFT's prepare_model_for_kbit_training has made norms, embeddings and head fp32. Beside them stands the same
run over the decoded matrices in fp64: where the two curves agree, they are a reference.
"""

import argparse
from pathlib import Path

from peers_common import FIXTURES, fresh, random_rows, relative, save_tensors, torch, train, trainable_line, write_json
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft_fixtures import OPTIONS, make_adapter, state
from quant_gpt2 import in_fp64
from transformers import GPT2LMHeadModel

torch.set_num_threads(1)
ADAPTERS = {"lora": dict(target_modules="all-linear"), "dora": dict(target_modules=["c_attn", "c_proj"], use_dora=True)}


def quantized(folder):
    model = prepare_model_for_kbit_training(GPT2LMHeadModel.from_pretrained(folder), use_gradient_checkpointing=False)
    assert all(p.dtype == torch.float32 for p in model.parameters() if not hasattr(p, "quant_state"))
    return model


def run(model, adapter, rows, options, dtype=torch.float32):
    model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    if dtype == torch.float64:
        model = model.double()
    return model, train(model, rows, options)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FIXTURES)
    out = parser.parse_args().out
    rows = random_rows(11, OPTIONS["max_steps"] * 4, vocab=48, shortest=4, longest=14)  # peft_data.jsonl
    options = {**OPTIONS, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    for seed, (name, settings) in enumerate(ADAPTERS.items()):
        base, folder = FIXTURES / "quant_gpt2_nf4", fresh(out / f"qlora_{name}")
        line = make_adapter(FIXTURES / "quant_gpt2", folder, seed, **settings)
        model, single = run(quantized(base), folder, rows, options)
        decoded, double = run(in_fp64(quantized(base)), folder, rows, options, torch.float64)
        apart = max(abs(a - b) / b for a, b in zip(single["loss"], double["loss"]))
        print(f"{folder.name}: {line} | loss {double['loss'][0]:.4f} -> {double['loss'][-1]:.4f}, fp32 and fp64 within {apart:.1e}")
        for key, value in state(decoded).items():
            assert relative(state(model)[key], value) < 1e-4, key
        curves = {f"{key}_{bits}": curve[key] for bits, curve in (("fp32", single), ("fp64", double)) for key in ("loss", "grad_norm")}
        write_json(folder / "run.json", {"trainable": line, "options": options, **curves})
        save_tensors(folder / "final.safetensors", state(decoded))


if __name__ == "__main__":
    main()
