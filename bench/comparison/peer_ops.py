"""PyTorch's counterparts of the ops that lowrank_bench ^op/ measures (tests/op_list.hpp), on inputs of the same shapes.
Prints one line of JSON: for each op its seconds at best, forward and with its backward."""

import argparse
import json
import time

import torch
import torch.nn.functional as F


def gelu_tanh(x):
    return F.gelu(x, approximate="tanh")


def rotated(x, cos, sin):
    """The first half of the features with the second, as LLaMA does; what lies beyond the table stays."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def attention(query, key, value, dropout_p=0.0):
    heads_first = [x.transpose(1, 2) for x in (query, key, value)]
    y = F.scaled_dot_product_attention(*heads_first, dropout_p=dropout_p, is_causal=True, enable_gqa=True)
    return y.transpose(1, 2)


def fused_attention(x, heads, width):
    return attention(*x.view(*x.shape[:2], 3, heads, width).unbind(2))


def counterparts(rows, width, attended):
    """For each op's name a function and its differentiable inputs."""
    features, classes = 4 * width, 5 * width
    head = 4 * min(width, 16)

    def values(*shape):
        return (torch.rand(shape) + 0.2) * (torch.randint(0, 2, shape) * 2 - 1)

    x, other, row, positive = values(rows, features), values(rows, features), values(features), torch.rand(rows, features) + 0.2
    weight, bias = values(classes, features), values(classes)
    labels = torch.arange(rows) * 3 % classes
    places = torch.tensor([0, 3, 1, 4, 2, 3])
    column = labels[:, None]
    spread = column.expand(rows, 2 * width).contiguous()
    columns = rows // 3 * 2 * width
    apart = torch.stack([1 - torch.arange(columns) % 2, 4 - torch.arange(columns) % 2 * 2])
    angles = torch.arange(rows, dtype=torch.float32)[:, None, None] * torch.logspace(0, -2, head // 2)
    cos, sin = angles.cos(), angles.sin()

    found = {
        name: (f, [positive if name in ("log", "sqrt", "rsqrt") else x])
        for name, f in {
            "neg": torch.neg, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt,
            "square": torch.square, "abs": torch.abs, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu,
            "silu": F.silu, "gelu_tanh": gelu_tanh, "gelu_erf": F.gelu,
            "numbers": lambda x: 2.0 * x - x / 3.0 + 1.0 / x - (0.5 - x),
            "clamp": lambda x: x.clamp(-0.7, 0.6),
            "sum": lambda x: x.sum(0),
            "mean": lambda x: x.mean(1, keepdim=True),
            "softmax": lambda x: F.softmax(x, -1),
            "log_softmax": lambda x: F.log_softmax(x, 0),
            "log_sum_exp": lambda x: x.logsumexp(0),
            "cumsum": lambda x: x.cumsum(1),
            "max": lambda x: x.max(0).values,
            "min": lambda x: x.min(),
            "reshape": lambda x: x.T.reshape(2 * rows // 3, -1),
            "slice": lambda x: x[:, 1:3],
            "select": lambda x: x[1],
            "dropout": lambda x: F.dropout(x, 0.4),
        }.items()
    }  # fmt: skip
    for name in ("add", "sub", "mul", "div", "pow", "maximum", "minimum"):
        found[name] = (getattr(torch, name), [positive if name == "pow" else x, row])
    found |= {
        "power": (lambda x: x**1.5 + x**-2, [positive]),
        "where": (lambda a, b: torch.where(other > 0, a, b), [x, row]),
        "layer_norm": (lambda x, w, b: F.layer_norm(x, (features,), w, b), [x, row, values(features)]),
        "rms_norm": (lambda x, w: F.rms_norm(x, (features,), w, 1e-5), [x, row]),
        "permute": (lambda x: x.permute(2, 0, 1).contiguous(), [values(2, rows, 2 * width)]),
        "concat": (lambda a, b: torch.cat([a, b, a], 1), [x, other]),
        "stack": (lambda a, b: torch.stack([a, b], 1), [x, other]),
        "broadcast_to": (lambda x: x.expand(2, rows, features), [row]),
        "cast": (lambda x: x.float(), [x]),
        "matmul": (lambda a, b: a @ b.T, [values(2, rows, features), weight]),
        "linear": (
            lambda x, w, bias, scale, residual, low, up: gelu_tanh((x @ w.T + 0.5 * (low @ up.T)) * scale + bias) + residual,
            [x, weight, bias, values(classes), values(rows, classes), values(rows, 2), values(classes, 2)],
        ),
        "linear_low_rank": (
            lambda x, down, up: x @ weight.T + 0.5 * (x @ down.T) @ up.T,
            [x, values(2, features), values(classes, 2)],
        ),
        "lm_head_logits": (lambda x, w: x @ w.T, [x, weight]),
        "index_select": (lambda x: x.index_select(1, places), [values(2, 5, rows * width)]),
        "gather": (lambda x: x.gather(1, column), [values(rows, classes)]),
        "scatter_add": (lambda x, source: x.scatter_add(0, spread, source), [values(classes, 2 * width), values(rows, 2 * width)]),
        "scatter": (lambda x, source: x.scatter(0, apart, source), [values(5, columns), values(2, columns)]),
        "rotary": (lambda x: rotated(x, cos, sin), [values(2, rows, 2, head + 1)]),
        "embedding": (lambda w: F.embedding(labels, w), [weight]),
        "cross_entropy": (lambda x: F.cross_entropy(x, labels), [values(rows, classes)]),
        "lm_head_loss": (lambda x, w: F.cross_entropy(x @ w.T, labels), [x, weight]),
        "attention": (
            lambda query, key, value: attention(query, key, value, 0.2),
            [values(2, attended, 4, head), values(2, attended, 2, head), values(2, attended, 2, head)],
        ),
        "fused_attention": (lambda x: fused_attention(x, 2, head), [values(2, attended, 6 * head)]),
    }  # fmt: skip
    return found


def seconds(f, least):
    """The best of what fits into `least` seconds, after once without counting."""
    f()
    best, end = float("inf"), time.monotonic() + least
    while best == float("inf") or time.monotonic() < end:
        began = time.perf_counter()
        f()
        best = min(best, time.perf_counter() - began)
    return best


def both_ways(f, inputs, least):
    with torch.no_grad():
        ones = torch.ones_like(f(*inputs))
        forward = seconds(lambda: f(*inputs), least)
    leaves = [x.clone().requires_grad_() for x in inputs]
    return {"forward": forward, "forward_and_backward": seconds(lambda: torch.autograd.grad(f(*leaves), leaves, ones), least)}


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--rows", type=int, default=3000)
parser.add_argument("--width", type=int, default=192, help="a quarter of the rows' length")
parser.add_argument("--attended", type=int, default=300, help="positions of the attention")
parser.add_argument("--seconds", type=float, default=0.1, help="for each figure")
options = parser.parse_args()
torch.set_num_threads(options.threads)
torch.manual_seed(0)
print(json.dumps({
    name: both_ways(f, inputs, options.seconds)
    for name, (f, inputs) in counterparts(options.rows, options.width, options.attended).items()
}))  # fmt: skip
