"""Makes tests/fixtures/ops_reference.safetensors: inputs, outputs and gradients of every op, by torch.

Inputs and upstream gradients are fp32 values; torch computes in fp64 from them, and results are rounded once to fp32.
A tensor is called "<op>.<case>.<tensor>": x, y, dy, dx for the op's input, output, upstream gradient and gradient, or the op's own names
(d<name> is the gradient of <name>). The metadata's "cases" is one JSON string: {"<op>.<case>": {setting: value}}.
Run: python ops_fixtures.py [--out tests/fixtures/ops_reference.safetensors]
"""

import argparse
import json
from pathlib import Path

from peers_common import FIXTURES, F, save_tensors, torch
from transformers import LlamaConfig
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as neox_rotary
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as llama_rotary

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
tensors, cases = {}, {}


def normal(*shape, scale=1.0):
    return torch.randn(shape, generator=generator) * scale


def add(op, case, forward, inputs, fixed=None, **settings):
    """Records one case: `inputs` get gradients, `fixed` (ids, masks) do not; `forward` takes both by name, in fp64."""
    name = f"{op}.{case}"
    assert name not in cases, name
    leaves = {k: v.double().requires_grad_() for k, v in inputs.items()}
    others = {k: v.double() if v.is_floating_point() else v for k, v in (fixed or {}).items()}
    y = forward(**leaves, **others)
    dy = normal(*y.shape)
    gradients = torch.autograd.grad(y, list(leaves.values()), dy.double(), materialize_grads=True)
    parts = {**inputs, **(fixed or {}), "y": y, "dy": dy, **{f"d{k}": g for k, g in zip(leaves, gradients)}}
    tensors.update({f"{name}.{k}": v for k, v in parts.items()})
    cases[name] = settings


SHAPES = {
    "scalar": (),
    "one": (1,),
    "empty": (0,),
    "empty_rows": (0, 5),
    "empty_middle": (2, 0, 3),
    "vector": (37,),
    "matrix": (5, 17),
    "ones": (1, 1, 4, 1),
    "rank4": (2, 3, 4, 5),
}
GELU_TANH = dict(approximate="tanh")


def elementwise():
    unary = {
        "exp": torch.exp,
        "log": torch.log,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "relu": torch.relu,
        "silu": F.silu,
        "gelu_tanh": lambda x: F.gelu(x, **GELU_TANH),
        "gelu_erf": F.gelu,
        "neg": torch.neg,
        "square": torch.square,
        "sqrt": torch.sqrt,
    }
    positive = ("log", "sqrt")
    for op, f in unary.items():
        for case, shape in SHAPES.items():
            x = normal(*shape, scale=2)
            add(op, case, lambda x, f=f: f(x), {"x": x.abs() + 0.01 if op in positive else x})
        reach = {"exp": (-87.0, 88.0), "log": (1e-30, 1e30), "sqrt": (1e-30, 1e30)}.get(op, (-30.0, 30.0))
        far = torch.logspace(-30, 30, 41) if op in positive else torch.linspace(*reach, 41)
        small = torch.tensor([1e-20, 1e-6, 1e-3]) if op in positive else torch.tensor([-1e-3, -1e-6, -1e-20, 1e-20, 1e-6, 1e-3])
        add(op, "range", lambda x, f=f: f(x), {"x": torch.cat([far, small])})


def broadcasting():
    pairs = {
        "same": ((3, 4), (3, 4)),
        "scalar": ((3, 4), ()),
        "scalar_left": ((), (2, 3)),
        "row": ((3, 4), (4,)),
        "row_left": ((4,), (3, 4)),
        "column": ((3, 4), (3, 1)),
        "outer": ((5, 1), (1, 6)),
        "both": ((2, 1, 4), (3, 1)),
        "middle": ((2, 3, 4), (2, 1, 4)),
        "rank4": ((2, 1, 3, 1), (4, 1, 5)),
        "ones": ((1, 1), (1,)),
        "one_to_many": ((1,), (2, 3, 2)),
        "empty": ((0,), (1,)),
        "empty_rows": ((0, 3), (3,)),
        "empty_by_one": ((2, 1), (2, 0)),
        "scalars": ((), ()),
        "long": ((2, 67), (67,)),
    }
    ops = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}
    for op, f in ops.items():
        for case, (left, right) in pairs.items():
            b = normal(*right)
            if op == "div":
                b = torch.where(b < 0, -1.0, 1.0) * (b.abs() + 0.3)
            add(op, case, lambda a, b, f=f: f(a, b), {"a": normal(*left), "b": b})


def reductions():
    reduced = {
        "all": ((3, 4), None, False),
        "all_keep": ((3, 4), None, True),
        "last": ((3, 5), [-1], False),
        "last_keep": ((3, 5), [-1], True),
        "first": ((3, 5), [0], False),
        "middle": ((2, 3, 4), [1], False),
        "two": ((2, 3, 4), [0, 2], False),
        "two_keep": ((2, 3, 4), [0, 2], True),
        "size_one": ((4, 1), [1], False),
        "long": ((3, 1000), [1], False),
        "rank4": ((2, 3, 2, 5), [1, 3], True),
        "one": ((1,), [0], False),
        "scalar": ((), None, False),
    }
    for case, (shape, dims, keep) in reduced.items():
        for op, f in {"sum": torch.sum, "mean": torch.mean}.items():
            axes = list(range(len(shape))) if dims is None else dims
            add(
                op,
                case,
                lambda x, f=f: f(x, axes, keepdim=keep) if axes else f(x),
                {"x": normal(*shape)},
                dims=axes,
                keepdim=keep,
            )
    for case, (shape, dims) in {
        "empty_rows": ((0, 5), [0]),
        "empty_all": ((0,), [0]),
        "empty_kept": ((0, 5), [1]),
        "empty_last": ((3, 0), [1]),
    }.items():
        add("sum", case, lambda x: torch.sum(x, dims), {"x": normal(*shape)}, dims=dims, keepdim=False)
    add("mean", "empty_kept", lambda x: torch.mean(x, [1]), {"x": normal(0, 5)}, dims=[1], keepdim=False)


def rows():
    shapes = {
        "one": (1,),
        "single_column": (4, 1),
        "vector": (9,),
        "matrix": (5, 17),
        "rank3": (2, 3, 8),
        "wide": (2, 261),
        "empty_rows": (0, 6),
    }
    for case, shape in shapes.items():
        add("softmax", case, lambda x: F.softmax(x, -1), {"x": normal(*shape, scale=3)})
        add("log_softmax", case, lambda x: F.log_softmax(x, -1), {"x": normal(*shape, scale=3)})
        add(
            "layer_norm",
            case,
            lambda x, weight, bias: F.layer_norm(x, shape[-1:], weight, bias, 1e-5),
            {"x": normal(*shape) + 0.5, "weight": 1 + 0.3 * normal(shape[-1]), "bias": normal(shape[-1])},
            eps=1e-5,
        )
    for op, f in {"softmax": F.softmax, "log_softmax": F.log_softmax}.items():
        add(
            op,
            "large",
            lambda x: f(x, -1),
            {"x": torch.tensor([[1e4, 1e4, -1e4], [-1e4, -1e4 + 1, -1e4 - 1], [88.0, 0.0, -88.0]])},
        )
    # A shifted row: the mean is 1,000 times the deviation, as in late layers of real models.
    add(
        "layer_norm",
        "offset",
        lambda x, weight, bias: F.layer_norm(x, (64,), weight, bias, 1e-5),
        {"x": normal(3, 64, scale=0.1) + 100, "weight": 1 + 0.3 * normal(64), "bias": normal(64)},
        eps=1e-5,
    )
    add(
        "layer_norm",
        "large_eps",
        lambda x, weight, bias: F.layer_norm(x, (6,), weight, bias, 1e-2),
        {"x": normal(4, 6, scale=0.05), "weight": 1 + 0.3 * normal(6), "bias": normal(6)},
        eps=1e-2,
    )
    add(
        "layer_norm",
        "constant",
        lambda x, weight, bias: F.layer_norm(x, (8,), weight, bias, 1e-5),
        {"x": torch.full((2, 8), 3.0), "weight": 1 + 0.3 * normal(8), "bias": normal(8)},
        eps=1e-5,
    )


def embeddings():
    tables = {
        "repeated": (torch.tensor([[1, 4, 1], [0, 4, 4]]), (6, 5)),
        "vector": (torch.tensor([2, 0, 2, 2]), (3, 8)),
        "one": (torch.tensor([0]), (1, 1)),
        "empty": (torch.zeros(0, dtype=torch.int64), (4, 3)),
        "wide": (torch.randint(0, 11, (2, 9), generator=generator), (11, 40)),
    }
    for case, (ids, shape) in tables.items():
        add("embedding", case, lambda weight, ids: F.embedding(ids, weight), {"weight": normal(*shape)}, {"ids": ids})


def matmuls():
    # Shapes are op(a) [.., m, k] and op(b) [.., k, n]; with transpose_a the stored a is [.., k, m], likewise b.
    shapes = {
        "square": ((8, 8), (8, 8)),
        "tall": ((33, 5), (5, 3)),
        "odd": ((7, 13), (13, 11)),
        "row": ((1, 9), (9, 6)),
        "column": ((6, 9), (9, 1)),
        "outer": ((5, 1), (1, 4)),
        "one": ((1, 1), (1, 1)),
        "inner_empty": ((3, 0), (0, 4)),
        "rows_empty": ((0, 4), (4, 3)),
        "batch": ((3, 4, 5), (3, 5, 6)),
        "batch2": ((2, 3, 4, 5), (2, 3, 5, 2)),
        "deep": ((4, 200), (200, 5)),
    }
    for case, (left, right) in shapes.items():
        for ta in (False, True):
            for tb in (False, True):
                a, b = normal(*left), normal(*right)
                a, b = (a.mT.contiguous() if ta else a), (b.mT.contiguous() if tb else b)
                add(
                    "matmul",
                    f"{case}_{'t' if ta else 'n'}{'t' if tb else 'n'}",
                    lambda a, b: (a.mT if ta else a) @ (b.mT if tb else b),
                    {"a": a, "b": b},
                    transpose_a=ta,
                    transpose_b=tb,
                )
    for case, (left, right) in {
        "broadcast_b": ((3, 4, 5), (5, 6)),
        "broadcast_a": ((4, 5), (3, 5, 2)),
        "broadcast_one": ((1, 2, 4, 3), (5, 1, 3, 2)),
    }.items():
        add("matmul", case, lambda a, b: a @ b, {"a": normal(*left), "b": normal(*right)}, transpose_a=False, transpose_b=False)


def cross_entropies():
    # The sum over tokens whose label is not -100 (y of shape []), and each token's loss (0 where ignored).
    targets = {
        "plain": torch.tensor([2, 0, 6, 3]),
        "ignored": torch.tensor([-100, 1, -100, 6, 0]),
        "all_ignored": torch.tensor([-100, -100]),
        "one": torch.tensor([4]),
        "empty": torch.zeros(0, dtype=torch.int64),
    }
    for case, labels in targets.items():
        for op, how in {"cross_entropy_sum": "sum", "cross_entropy_tokens": "none"}.items():
            add(
                op,
                case,
                lambda x, labels: F.cross_entropy(x, labels, ignore_index=-100, reduction=how),
                {"x": normal(len(labels), 7, scale=2)},
                {"labels": labels},
                ignore_index=-100,
            )
    wide = torch.randint(0, 301, (6,), generator=generator)
    wide[2] = -100
    add(
        "cross_entropy_sum",
        "wide",
        lambda x, labels: F.cross_entropy(x, labels, reduction="sum"),
        {"x": normal(6, 301, scale=4)},
        {"labels": wide},
        ignore_index=-100,
    )
    add(
        "cross_entropy_sum",
        "large",
        lambda x, labels: F.cross_entropy(x, labels, reduction="sum"),
        {"x": torch.tensor([[1e4, 0.0, -1e4], [-1e4, 1e4, 9999.0]])},
        {"labels": torch.tensor([1, 2])},
        ignore_index=-100,
    )


def attention(q, k, v, scale, segments=None, keep=None, p=0.0):
    """q [B,T,H,D], k and v [B,T,Hkv,D]; query head h reads key head h // (H / Hkv); segments [B,T]; keep [B,H,T,T], 1 where kept."""
    batch, length, heads, _ = q.shape
    repeat = heads // k.shape[2]
    q, k, v = (t.transpose(1, 2) for t in (q, k.repeat_interleave(repeat, 2), v.repeat_interleave(repeat, 2)))
    allowed = torch.tril(torch.ones(length, length, dtype=torch.bool)).expand(batch, 1, length, length)
    if segments is not None:
        allowed = allowed & (segments[:, None, :, None] == segments[:, None, None, :])
    probability = F.softmax((q @ k.mT * scale).masked_fill(~allowed, float("-inf")), -1)
    if keep is not None:
        probability = probability * keep / (1 - p)
    return (probability @ v).transpose(1, 2)


def attentions():
    # B, T, H, Hkv, D
    sizes = {
        "plain": (2, 7, 2, 2, 4),
        "grouped": (1, 9, 4, 2, 5),
        "shared": (2, 5, 3, 1, 3),
        "one": (1, 1, 1, 1, 1),
        "one_token": (2, 1, 2, 1, 4),
        "odd": (1, 37, 1, 1, 9),
    }
    for case, (b, t, h, g, d) in sizes.items():
        for variant in ("", "_segments", "_dropout", "_both"):
            if variant and case in ("one", "one_token"):
                continue
            fixed, p = {}, 0.25
            if variant in ("_segments", "_both"):
                starts = (torch.rand(b, t, generator=generator) < 0.35).int()
                starts[:, 0] = 0
                fixed["segments"] = starts.cumsum(1).to(torch.int64)
            if variant in ("_dropout", "_both"):
                fixed["keep"] = (torch.rand(b, h, t, t, generator=generator) >= p).float()
            qkv = {"q": normal(b, t, h, d), "k": normal(b, t, g, d), "v": normal(b, t, g, d)}
            settings = dict(scale=d**-0.5, p=p if "keep" in fixed else 0.0)
            add(
                "attention",
                case + variant,
                lambda q, k, v, segments=None, keep=None: attention(q, k, v, settings["scale"], segments, keep, settings["p"]),
                qkv,
                fixed,
                **settings,
            )
    add(
        "attention",
        "scale",
        lambda q, k, v: attention(q, k, v, 1.0),
        {"q": normal(1, 6, 2, 4), "k": normal(1, 6, 2, 4), "v": normal(1, 6, 2, 4)},
        scale=1.0,
        p=0.0,
    )
    add(
        "attention",
        "empty",
        lambda q, k, v: attention(q, k, v, 0.5),
        {"q": normal(0, 3, 2, 4), "k": normal(0, 3, 2, 4), "v": normal(0, 3, 2, 4)},
        scale=0.5,
        p=0.0,
    )


ACTIVATIONS = {
    "none": lambda z: z,
    "gelu_tanh": lambda z: F.gelu(z, **GELU_TANH),
    "gelu_erf": F.gelu,
    "relu": torch.relu,
    "silu": F.silu,
}


def linear(activation, scale, x, weight, bias=None, column_scale=None, residual=None, a=None, b=None):
    """y = residual + activation(column_scale * (x Wᵀ + scale (x Aᵀ) Bᵀ) + bias), what is absent left out. weight [out,in], a [r,in], b [out,r]."""
    z = x @ weight.T
    if a is not None:
        z = z + scale * (x @ a.T) @ b.T
    if column_scale is not None:
        z = z * column_scale
    if bias is not None:
        z = z + bias
    z = ACTIVATIONS[activation](z)
    return z if residual is None else residual + z


def linears():
    settings = [
        # case, rows, in, out, r, bias, column scale, activation, residual
        ("plain", (5,), 7, 6, 0, False, False, "none", False),
        ("bias", (5,), 7, 6, 0, True, False, "none", False),
        ("gelu_tanh", (4,), 8, 9, 0, True, False, "gelu_tanh", False),
        ("gelu_erf", (4,), 8, 9, 0, True, False, "gelu_erf", False),
        ("relu", (4,), 8, 9, 0, True, False, "relu", False),
        ("silu", (4,), 8, 9, 0, False, False, "silu", False),
        ("residual", (2, 3), 6, 5, 0, True, False, "none", True),
        ("column_scale", (5,), 7, 6, 0, True, True, "none", False),
        ("low_rank", (5,), 7, 6, 2, False, False, "none", False),
        ("low_rank_bias", (2, 4), 9, 12, 4, True, False, "none", False),
        ("low_rank_gelu", (6,), 8, 16, 3, True, False, "gelu_tanh", False),
        ("low_rank_residual", (6,), 8, 5, 1, True, False, "none", True),
        ("dora", (2, 3), 8, 10, 4, True, True, "none", False),
        ("everything", (2, 5), 13, 11, 3, True, True, "gelu_tanh", True),
        ("one", (1,), 1, 1, 1, True, True, "gelu_erf", True),
        ("empty", (0,), 4, 3, 2, True, False, "gelu_tanh", True),
        ("wide", (3,), 65, 70, 8, True, False, "none", True),
    ]
    for case, rows_, n, m, r, bias, column, activation, residual in settings:
        inputs = {"x": normal(*rows_, n), "weight": normal(m, n, scale=n**-0.5)}
        if bias:
            inputs["bias"] = normal(m)
        if column:
            inputs["column_scale"] = 1 + 0.3 * normal(m)
        if residual:
            inputs["residual"] = normal(*rows_, m)
        if r:
            inputs |= {"a": normal(r, n, scale=n**-0.5), "b": normal(m, r)}
        add("linear", case, lambda **t: linear(activation, 1.5, **t), inputs, activation=activation, scale=1.5 if r else 0.0)


def powers_and_selection():
    pairs = {
        "same": ((3, 4), (3, 4)),
        "scalar": ((3, 4), ()),
        "row_left": ((4,), (3, 4)),
        "outer": ((5, 1), (1, 6)),
        "empty": ((0, 3), (3,)),
        "long": ((2, 67), (67,)),
    }
    for case, (left, right) in pairs.items():
        for op, f in {"pow": torch.pow, "maximum": torch.maximum, "minimum": torch.minimum}.items():
            a = normal(*left)
            add(op, case, lambda a, b, f=f: f(a, b), {"a": a.abs() + 0.05 if op == "pow" else a, "b": normal(*right)})
        mask = (normal(*torch.broadcast_shapes(left, right)) > 0).float()
        add("where", case, lambda a, b, mask: torch.where(mask != 0, a, b), {"a": normal(*left), "b": normal(*right)}, {"mask": mask})
    for op, f in {"maximum": torch.maximum, "minimum": torch.minimum}.items():
        add(op, "ties", lambda a, b, f=f: f(a, b), {"a": torch.tensor([1.0, 2.0, -0.0, 3.0]), "b": torch.tensor([1.0, -2.0, 0.0, 3.0])})
    for exponent in (0, 1, 2, 3, 0.5, -1, -1.5):
        x = normal(5, 7)
        x = x if exponent % 1 == 0 and exponent > 0 else x.abs() + 0.1
        add("power", f"by_{exponent}", lambda x: x**exponent, {"x": x}, exponent=exponent)
    add("power", "zero", lambda x: x**0, {"x": torch.tensor([0.0, 1.0, -2.0])}, exponent=0)
    for case, (low, high) in {"both": (-0.5, 0.75), "below": (0.1, 1e30), "above": (-1e30, 0.1), "ends": (0.0, 1.0)}.items():
        x = torch.tensor([[-1.0, 0.0, 0.5], [1.0, 2.0, -0.0]]) if case == "ends" else normal(4, 9)
        add("clamp", case, lambda x: torch.clamp(x, low, high), {"x": x}, low=low, high=high)


def lines():
    """Ops along one dimension."""
    shapes = {"vector": ((9,), 0), "last": ((4, 7), 1), "first": ((6, 70), 0), "middle": ((2, 5, 3), 1), "one": ((3, 1), 1), "wide": ((2, 4, 67), 1)}
    for case, (shape, dim) in shapes.items():
        add("cumsum", case, lambda x: torch.cumsum(x, dim), {"x": normal(*shape)}, dim=dim)
        add("log_sum_exp", case, lambda x: torch.logsumexp(x, dim), {"x": normal(*shape, scale=3)}, dim=dim)
        for op, f in {"max": torch.max, "min": torch.min}.items():
            x = normal(*shape).round(decimals=1)  # with ties
            add(op, case, lambda x, indices, f=f: f(x, dim).values, {"x": x}, {"indices": f(x, dim).indices}, dim=dim)
        for many in (1, 5):
            to = [*shape[:dim], many, *shape[dim + 1 :]]
            index = torch.randint(0, shape[dim], to, generator=generator)
            some = torch.randint(0, shape[dim], (many,), generator=generator)
            add("gather", f"{case}_{many}", lambda x, index: torch.gather(x, dim, index), {"x": normal(*shape)}, {"index": index}, dim=dim)
            add("index_select", f"{case}_{many}", lambda x, index: torch.index_select(x, dim, index), {"x": normal(*shape)}, {"index": some}, dim=dim)
            add(
                "scatter_add",
                f"{case}_{many}",
                lambda x, source, index: torch.scatter_add(x, dim, index, source),
                {"x": normal(*shape), "source": normal(*to)},
                {"index": index},
                dim=dim,
            )
        many = min(4, shape[dim])
        index = torch.rand(shape, generator=generator).argsort(dim).narrow(dim, 0, many).contiguous()  # no repetitions
        add(
            "scatter",
            case,
            lambda x, source, index: torch.scatter(x, dim, index, source),
            {"x": normal(*shape), "source": normal(*index.shape)},
            {"index": index},
            dim=dim,
        )
    for case, x in {"large": torch.tensor([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4 + 1, -1e4]]), "empty_rows": normal(0, 3)}.items():
        add("log_sum_exp", case, lambda x: torch.logsumexp(x, -1), {"x": x}, dim=-1)


def llama():
    shapes = {"one": (1,), "single_column": (4, 1), "vector": (9,), "matrix": (5, 17), "rank3": (2, 3, 8), "wide": (2, 261)}
    for case, shape in {**shapes, "empty_rows": (0, 6)}.items():
        for eps in (1e-6, 1e-2):
            add(
                "rms_norm",
                f"{case}_{eps}",
                lambda x, weight: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight,
                {"x": normal(*shape) + 0.5, "weight": 1 + 0.3 * normal(shape[-1])},
                eps=eps,
            )
    # head_dim, rotary dimensions, theta, positions [batch, length]
    far = torch.tensor([[0, 1, 2, 3, 0, 1], [5, 100, 2047, 4096, 8191, 100000]])
    for case, (dim, turned, theta, positions) in {
        "plain": (8, 8, 10000.0, torch.arange(5).repeat(2, 1)),
        "packed": (16, 16, 10000.0, far),
        "llama3": (64, 64, 500000.0, far),
        "partial": (20, 6, 10000.0, far),
        "two": (2, 2, 10000.0, far),
        "one": (4, 4, 10000.0, torch.zeros(1, 1, dtype=torch.int64)),
    }.items():
        config = LlamaConfig(head_dim=turned, rope_parameters={"rope_type": "default", "rope_theta": theta})
        cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(()), positions)
        x = normal(*positions.shape, 3, dim)
        apply = llama_rotary if turned == dim else neox_rotary
        add(
            "rotary",
            case,
            lambda x, positions: apply(x, x, cos, sin, unsqueeze_dim=2)[0],
            {"x": x},
            {"positions": positions},
            theta=theta,
            dimensions=turned,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FIXTURES / "ops_reference.safetensors")
    out = parser.parse_args().out
    first = (elementwise, broadcasting, reductions, rows, embeddings, matmuls, cross_entropies, attentions, linears)
    for group in (*first, powers_and_selection, lines, llama):
        group()
    for name, value in tensors.items():
        assert value.numel() == 0 or torch.isfinite(value.float()).all(), name
    save_tensors(out, tensors, {"cases": json.dumps(cases)})
    print(f"{out.name}: {len(cases)} cases, {len(tensors)} tensors, {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
