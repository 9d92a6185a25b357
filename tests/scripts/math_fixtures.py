"""Writes fixtures/math_pytorch.txt: PyTorch's values and derivatives of the formulas of include/lowrank/math.

Each line is `name a b f da db`, in double; unary formulas have 0 for b and db. Needs torch.
Usage: math_fixtures.py [OUTPUT]
"""

import pathlib
import sys

import torch
import torch.nn.functional as F

UNARY = {
    "neg": torch.neg, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt,
    "square": torch.square, "abs": torch.abs, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu,
    "silu": F.silu, "gelu_erf": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
BINARY = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "pow": torch.pow,
    "maximum": torch.maximum, "minimum": torch.minimum,
}
COMPARISON = {
    "greater": torch.gt, "greater_equal": torch.ge, "less": torch.lt, "less_equal": torch.le, "equal": torch.eq,
    "not_equal": torch.ne,
}

inf, nan = float("inf"), float("nan")
SPECIAL = [0.0, -0.0, inf, -inf, nan, 1e30, -1e30, 1e-30, -1e-30, 100.0, -100.0]
POINTS = [i / 5 for i in range(-40, 41)] + SPECIAL
PAIRS = [(a, b) for a in [-2.5, -1.0, 0.75, 3.0, 0.0, inf, nan] for b in [-1.5, 0.25, 2.0, 0.0, inf, nan]]

here = pathlib.Path(__file__).parent
output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent / "fixtures" / "math_pytorch.txt"


def write(out, name, *numbers):
    print(name, *(repr(x if isinstance(x, (int, float)) else x.item()) for x in numbers), file=out)


with output.open("w") as out:
    for name, function in UNARY.items():
        for point in POINTS:
            x = torch.tensor([point], dtype=torch.float64, requires_grad=True)
            y = function(x)
            (dx,) = torch.autograd.grad(y.sum(), x)
            write(out, name, point, 0, y, dx, 0)
    for name, function in BINARY.items():
        for left, right in PAIRS:
            a = torch.tensor([left], dtype=torch.float64, requires_grad=True)
            b = torch.tensor([right], dtype=torch.float64, requires_grad=True)
            y = function(a, b)
            da, db = torch.autograd.grad(y.sum(), (a, b))
            write(out, name, left, right, y, da, db)
    for name, function in COMPARISON.items():
        for left, right in PAIRS:
            write(out, name, left, right, float(function(torch.tensor(left), torch.tensor(right))), 0, 0)
