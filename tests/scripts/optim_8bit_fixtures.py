"""Makes tests/fixtures/optim_adamw_8bit.safetensors: a run of AdamW with 8-bit moments by the rule of bitsandbytes' CUDA kernel.

The rule is that of kOptimizerStatic8bit2StateBlockwise and quantize_2D in csrc/kernels.cu, in numpy: the code of the nearest number of the map, and
a first moment keeps its sign. With one exception: a second moment does not become zero. Where it does while the first moment does not, the next small
gradient moves the parameter by many times the learning rate. The CPU build of bitsandbytes 0.50.2 runs AdamW8bit, too, but looks codes up in a table
of 65,536 places, so that zero and all that is small get the code of about 2e-5 of the scale. How far each run ends from fp32 AdamW is printed.
"""

import argparse
from pathlib import Path

import bitsandbytes
import numpy as np
from bitsandbytes.functional import create_dynamic_map
from peers_common import FIXTURES, torch
from safetensors.torch import save_file

STEPS = 12
SHAPES = {"wide": (41, 100), "narrow": (63, 65)}  # 4,100 numbers in 8 bits, the last block short; 4,095 stay fp32
SETTINGS = dict(lr=2e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.05)
BLOCK = 256
f32 = np.float32


def gradient_of(base, step):
    """That of a step: the same numbers moved on, so that every element meets many magnitudes. Exact in fp32."""
    return torch.roll(base.flatten(), 37 * step).view_as(base) * 2.0 ** -(step % 5)


def codes_of(x, qmap, signed):
    above = np.clip(np.searchsorted(qmap, x), 1, 255)
    codes = np.where(x > (qmap[above - 1] + qmap[above]) * f32(0.5), above, above - 1)
    if signed:
        codes = np.where(np.signbit(qmap[codes]) != np.signbit(x), codes + np.where(x > 0, 1, -1), codes)
    return codes.astype(np.uint8)


class Adamw8bit:
    def __init__(self, count, lowest=1):
        self.lowest = lowest  # code of a second moment; 0 in bitsandbytes
        self.maps = [create_dynamic_map(signed).numpy() for signed in (True, False)]
        self.codes = [np.zeros(count, np.uint8) for _ in range(2)]
        self.absmax = [np.zeros(-(-count // BLOCK), f32) for _ in range(2)]

    def step(self, p, g, step):
        lr, (beta1, beta2), eps, decay = (SETTINGS[key] for key in ("lr", "betas", "eps", "weight_decay"))
        spread = lambda absmax: np.repeat(absmax, BLOCK)[: p.size]
        m, v = (qmap[codes] * spread(absmax) for qmap, codes, absmax in zip(self.maps, self.codes, self.absmax))
        m = m * f32(beta1) + f32(1 - beta1) * g
        v = v * f32(beta2) + f32(1 - beta2) * g * g
        correction1, correction2 = 1 - beta1**step, np.sqrt(1 - beta2**step)
        p = p + f32(-lr * correction2 / correction1) * (m / (np.sqrt(v) + f32(correction2 * eps)))
        for i, x in enumerate((m, v)):
            self.absmax[i] = np.array([np.abs(x[b : b + BLOCK]).max() for b in range(0, p.size, BLOCK)], f32)
            self.codes[i] = codes_of(x / spread(self.absmax[i]), self.maps[i], i == 0)
        self.codes[1] = np.maximum(self.codes[1], self.lowest)
        return p * f32(1 - lr * decay)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FIXTURES)
    torch.manual_seed(11)
    start = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    gradients = {name: torch.randn(shape) * 10 ** (-5 * torch.rand(shape)) for name, shape in SHAPES.items()}
    tensors = {f"start.{name}": value for name, value in start.items()}
    tensors |= {f"gradient.{name}": value for name, value in gradients.items()}
    runs = {}
    for optimizer_class in (torch.optim.AdamW, bitsandbytes.optim.AdamW8bit):
        runs[optimizer_class] = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
        optimizer = optimizer_class(runs[optimizer_class].values(), **SETTINGS)
        for step in range(STEPS):
            for name, p in runs[optimizer_class].items():
                p.grad = gradient_of(gradients[name], step)
            optimizer.step()
    exact, cpu = runs.values()
    ends = {"the CPU build": cpu["wide"]}
    for lowest, what in ((0, "CUDA's rule"), (1, "with the exception")):
        wide, own = start["wide"].numpy().flatten(), Adamw8bit(start["wide"].numel(), lowest)
        for step in range(STEPS):
            wide = own.step(wide, gradient_of(gradients["wide"], step).numpy().flatten(), step + 1)
            if lowest == 1 and step in (0, 4, STEPS - 1):
                tensors[f"wide.{step}"] = torch.from_numpy(wide.copy())
                for i, moment in enumerate(("exp_avg", "exp_avg_sq")):
                    tensors[f"{moment}_codes.{step}"] = torch.from_numpy(own.codes[i])
                    tensors[f"{moment}_absmax.{step}"] = torch.from_numpy(own.absmax[i])
        ends[what] = torch.from_numpy(wide)
    tensors |= {"fp32.wide": exact["wide"].detach(), "cpu.wide": cpu["wide"].detach(), "narrow": cpu["narrow"].detach()}
    tensors |= {"map": torch.from_numpy(own.maps[0]), "unsigned_map": torch.from_numpy(own.maps[1])}
    way = (exact["wide"] - start["wide"]).detach().norm()
    for what, end in ends.items():
        print(f"distance from fp32 AdamW, of the way gone, {what}: {float((end.detach().view_as(exact['wide']) - exact['wide'].detach()).norm() / way):.4f}")
    save_file({key: value.clone() for key, value in tensors.items()}, str(parser.parse_args().out / "optim_adamw_8bit.safetensors"), metadata={"format": "pt"})
