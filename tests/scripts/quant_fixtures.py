"""Makes tests/fixtures/quant_nf4.safetensors: tensors quantized and decoded by bitsandbytes, and scales quantized again by the rule of its CUDA kernels."""

import argparse
import json
from pathlib import Path

import bitsandbytes.functional as bnb
import numpy as np
from peers_common import FIXTURES, SHARED_DATA, save_tensors, torch


def quantized(values):
    """Codes, scales and decoded numbers of a tensor."""
    codes, state = bnb.quantize_4bit(values, quant_type="nf4", blocksize=64)
    decoded = bnb.dequantize_4bit(codes, state)
    return codes.flatten(), state.absmax.clone(), decoded.flatten()


def near_thresholds():
    """Blocks whose scales are 1, 3 and 0.7, with numbers at the thresholds between two codes and just beside them."""
    code = bnb.get_4bit_type("nf4", device="cpu")
    middle = (code[1:] + code[:-1]) / 2
    block = torch.cat([torch.ones(1), middle, torch.nextafter(middle, torch.tensor(2.0)), torch.nextafter(middle, torch.tensor(-2.0)), code, torch.zeros(2)])
    return torch.cat([block * scale for scale in (1.0, 3.0, 0.7)])


def cases():
    draw = torch.Generator().manual_seed(1)
    random = lambda count: torch.randn(count, generator=draw)
    return {
        "random": random(1280),
        "bf16": random(640).to(torch.bfloat16),
        "fp16": random(640).to(torch.float16),
        "ragged": random(1001),
        "ragged_fp16": random(167).to(torch.float16),
        "one": torch.tensor([-0.3]),
        "constant": torch.full((130,), -0.37),
        "zeros": torch.cat([torch.zeros(100), random(28), torch.zeros(70)]),
        "tiny": random(192) * 1e-36,
        "tiny_fp16": (random(192) * 1e-6).to(torch.float16),
        "huge": random(192).clamp(-3, 3) * 1e38,
        "huge_bf16": (random(192).clamp(-3, 3) * 1e38).to(torch.bfloat16),
        "thresholds": near_thresholds(),
        "infinite": torch.cat([torch.tensor([float("inf"), 1.0, -2.0]), random(61), torch.tensor([float("nan")]), random(63), random(64)]),
    }


def cuda_code(code, x):
    """dQuantize of bitsandbytes' CUDA kernels: a binary search, then the nearer neighbour."""
    pivot, lower, upper, step = 127, 0, 255, 64
    while step:
        if x > code[pivot]:
            lower, pivot = pivot, pivot + step
        else:
            upper, pivot = pivot, pivot - step
        step //= 2
    if x > code[pivot]:
        return upper if x > (code[upper] + code[pivot]) * np.float32(0.5) else pivot
    return lower if x < (code[lower] + code[pivot]) * np.float32(0.5) else pivot


def nested(absmax):
    """Scales quantized again in blocks of 256. The offset is rounded once, which torch.mean is not."""
    code = bnb.create_dynamic_map().numpy()
    offset = np.float32(absmax.double().mean().item())
    rest = absmax.numpy() - offset
    codes, scales = [], []
    for begin in range(0, len(rest), 256):
        block = rest[begin : begin + 256]
        scales.append(np.abs(block).max())
        reciprocal = np.float32(1) / scales[-1]
        codes += [cuda_code(code, x * reciprocal) for x in block]
    codes, scales = torch.tensor(codes, dtype=torch.uint8), torch.tensor(np.array(scales))
    state = bnb.QuantState(absmax=scales, code=torch.from_numpy(code), blocksize=256, dtype=torch.float32)
    restored = bnb.dequantize_blockwise(codes, state) + torch.tensor(offset)
    theirs = bnb.quantize_blockwise(torch.from_numpy(rest), blocksize=256)[0]
    assert (theirs.int() - codes.int()).abs().max() <= 1
    return {"absmax": absmax, "codes": codes, "nested_absmax": scales, "offset": torch.tensor([offset]), "restored": restored, "map": torch.from_numpy(code)}


def ties():
    """Numbers half way between neighbours of the dynamic map, and their codes."""
    code = bnb.create_dynamic_map().numpy()
    middle = (code[1:] + code[:-1]) * np.float32(0.5)
    return {"values": torch.from_numpy(middle), "codes": torch.tensor([cuda_code(code, x) for x in middle], dtype=torch.uint8)}


def digest(tensor):
    """FNV-1a of the tensor's bytes."""
    value = 0xCBF29CE484222325
    for byte in tensor.contiguous().view(torch.uint8).numpy().tobytes():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def real(path):
    """A matrix of GPT-2, [in, out] big-endian, transposed as Transformers does before it quantizes."""
    weight = torch.from_numpy(np.fromfile(path, ">f4").astype("<f4")).reshape(768, 768).T.contiguous()
    made = {}
    for name, values in {"f32": weight, "bf16": weight.to(torch.bfloat16)}.items():
        made |= {f"{name}.{part}": digest(tensor) for part, tensor in zip(("codes", "absmax", "decoded"), quantized(values))}
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FIXTURES / "quant_nf4.safetensors")
    parser.add_argument("--tensors", type=Path, default=SHARED_DATA / "gpt2-tensors", help="GPT-2's real matrices")
    options = parser.parse_args()
    tensors = {}
    for name, values in cases().items():
        tensors |= dict(zip((f"{name}.values", f"{name}.codes", f"{name}.absmax", f"{name}.decoded"), (values, *quantized(values))))
    draw = torch.Generator().manual_seed(2)
    scales = torch.rand(600, generator=draw) ** 2 * 0.3
    scales[:3] = torch.tensor([0.0, 1.5, 1e-5])
    tensors |= {f"nested.{name}": value for name, value in nested(scales).items()}
    tensors |= {f"ties.{name}": value for name, value in ties().items()}
    hashes = {path.name: real(path) for path in sorted(options.tensors.glob("*.f32be"))}
    save_tensors(options.output, tensors, metadata={"real": json.dumps(hashes)})


if __name__ == "__main__":
    main()
