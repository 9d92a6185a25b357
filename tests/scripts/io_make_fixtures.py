#!/usr/bin/env python3
"""Writes the fixtures of tests/io with the reference implementations: safetensors, huggingface_hub, json.

usage: io_make_fixtures.py [directory]    (default: ../fixtures beside this script)
"""

import json
import random
import struct
import sys
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import deserialize
from safetensors.torch import save_file

out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "fixtures"
out.mkdir(parents=True, exist_ok=True)


def ramp(dtype, *shape):
    """0, 1, 2, … in the order of memory."""
    count = 1
    for size in shape:
        count *= size
    return torch.arange(count).reshape(shape).to(dtype)


# Every type that lowrank has; a scalar, empty tensors, names that need escapes.
save_file(
    {
        "f64": ramp(torch.float64, 3),
        "f32": ramp(torch.float32, 2, 3),
        "bf16": ramp(torch.bfloat16, 5),
        "f16": ramp(torch.float16, 1, 2, 1),
        "i64": ramp(torch.int64, 4),
        "i32": ramp(torch.int32, 2, 2),
        "i16": ramp(torch.int16, 3),
        "i8": ramp(torch.int8, 3),
        "u8": ramp(torch.uint8, 5),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0),
        "empty.middle": torch.zeros(2, 0, 3, dtype=torch.int8),
        'name "quoted" \\ \n \u007f é 日本 \U0001f600': ramp(torch.float32, 2),
    },
    out / "io_all_dtypes.safetensors",
    metadata={"format": "pt"},
)

# Types that lowrank lacks beside one that it has.
save_file(
    {
        "known": ramp(torch.float32, 2),
        "u16": ramp(torch.uint16, 3),
        "u32": ramp(torch.uint32, 3),
        "u64": ramp(torch.uint64, 3),
        "f8": ramp(torch.float32, 3).to(torch.float8_e4m3fn),
        "complex": torch.zeros(2, dtype=torch.complex64),
    },
    out / "io_foreign_dtypes.safetensors",
)

# Shards with an index, as save_pretrained writes them.
(out / "io_sharded").mkdir(exist_ok=True)
save_torch_state_dict(
    {f"layer.{i}.weight": torch.full((4, 4), float(i)) for i in range(5)},
    out / "io_sharded",
    max_shard_size=128,
)

# Headers and whether the reference reads them: [header, bytes of data, accepted].
good = '"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'


def one(shape="[4]", offsets="[0,4]", dtype='"U8"', extra=""):
    return '{"a":{"dtype":%s,"shape":%s,"data_offsets":%s%s}}' % (dtype, shape, offsets, extra)


def two(first, second, sizes=(4, 4)):
    return '{"a":{"dtype":"U8","shape":[%d],"data_offsets":%s},"b":{"dtype":"U8","shape":[%d],"data_offsets":%s}}' % (
        sizes[0], first, sizes[1], second)


headers = [
    ("{}", 0), ("{}", 1), ("", 0), ("[]", 0), ("null", 0), ("{} x", 0), ("{", 0), ("{}   ", 0),
    ("{%s}" % good, 4), ("{%s}" % good, 3), ("{%s}" % good, 5), ("{%s}\n " % good, 4), ("\ufeff{%s}" % good, 4),
    ('{"__metadata__":{},%s}' % good, 4), ('{"__metadata__":{"k":"v"},%s}' % good, 4),
    ('{"__metadata__":null,%s}' % good, 4), ('{"__metadata__":{"k":1},%s}' % good, 4),
    ('{"__metadata__":[],%s}' % good, 4), ('{"__metadata__":"x",%s}' % good, 4),
    ('{"__metadata__":{"k":{"x":"y"}},%s}' % good, 4),
    (one(extra=',"other":1'), 4), (one(extra=',"shape":[4]'), 4), (one("[4.0]"), 4), (one("[-4]"), 4),
    (one('["4"]'), 4), (one("4"), 4), (one("null"), 4), (one("{}"), 4), (one("[[4]]"), 4), (one("[2,2]"), 4),
    (one("[5]"), 4), (one("[3]"), 4), (one("[]", "[0,1]"), 1), (one("[]", "[0,0]"), 0), (one("[0]", "[0,0]"), 0),
    (one("[1e0]", "[0,1]"), 1), (one("[-0]", "[0,0]"), 0),
    (one(offsets="[0,4,5]"), 4), (one(offsets="[0]"), 4), (one(offsets="[4,0]"), 4), (one(offsets="[1,5]"), 5),
    (one(offsets="[-1,3]"), 4), (one(offsets="[0,5]"), 4), (one(offsets='["0","4"]'), 4), (one(offsets="[0.0,4]"), 4),
    (one(offsets="{}"), 4), (one(offsets="[0,18446744073709551615]"), 4), (one(offsets="[0,99999999999999999999]"), 4),
    (one(dtype="1"), 4), (one(dtype="null"), 4), (one(dtype='"F32"', shape="[1]"), 4), (one(dtype='"F32"'), 4),
    (one("[4294967296,4294967296]"), 4), (one("[9223372036854775807,2]"), 4), (one("[18446744073709551615]"), 4),
    (one("[0,9223372036854775807]", "[0,0]"), 0), (one("[0,9223372036854775807,9]", "[0,0]"), 0),
    (one("[4611686018427387904,8,0]", "[0,0]"), 0), (one("[2305843009213693952,0]", "[0,0]", '"F64"'), 0),
    (one("[2305843009213693953]", "[0,8]", '"F64"'), 8),
    ('{"a":1}', 0), ('{"a":null}', 0), ('{"a":{}}', 0), ('{"a":{"dtype":"U8","shape":[0]}}', 0),
    ('{"a":{"dtype":"U8","data_offsets":[0,0]}}', 0), ('{"a":{"shape":[0],"data_offsets":[0,0]}}', 0),
    (two("[0,4]", "[4,8]"), 8), (two("[4,8]", "[0,4]"), 8), (two("[0,4]", "[0,4]"), 4), (two("[0,4]", "[2,6]"), 6),
    (two("[0,4]", "[5,9]"), 9), (two("[0,4]", "[4,8]"), 9), (two("[0,4]", "[4,8]"), 7),
    (two("[0,0]", "[0,4]", (0, 4)), 4), (two("[2,2]", "[0,4]", (0, 4)), 4), (two("[4,4]", "[0,4]", (0, 4)), 4),
    ("{%s}" % good.replace('"a"', '""'), 4), ("{%s}" % good.replace('"a"', '"\\u0000"'), 4),
    ("{%s}" % good.replace('"a"', '"\\ud800"'), 4), ("{%s,}" % good, 4), ("{%s}}" % good, 4),
    ('{"a":%s1%s}' % ("[" * 120, "]" * 120), 0), ('{"a":%s1%s}' % ("[" * 200, "]" * 200), 0),
]
verdicts = []
for header, size in headers:
    raw = header.encode()
    try:
        deserialize(struct.pack("<Q", len(raw)) + raw + bytes(size))
        verdicts.append([header, size, True])
    except Exception:
        verdicts.append([header, size, False])
(out / "io_header_verdicts.json").write_text(json.dumps(verdicts, indent=0))

# What Python's json writes: floats of every size, escapes, nesting, empty containers.
random.seed(1)
floats = [struct.unpack("<d", struct.pack("<Q", random.getrandbits(64)))[0] for _ in range(100)]
floats = [x for x in floats if x == x and abs(x) != float("inf")]
floats += [random.choice([-1, 1]) * random.random() * 10.0 ** random.randint(-8, 20) for _ in range(100)]
floats += [0.0, -0.0, 1.0, 16.0, 0.1, 1e-5, 2e-4, 5e-324, 1.7976931348623157e308, 1e15, 1e16, 123456789012345680.0,
           9007199254740993.0, 0.0001, 0.00001234, 1e22, 1e23, 3.0e-5, 0.30000000000000004]
(out / "io_python.json").write_text(
    json.dumps(
        {
            "r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": ["c_attn", "c_proj"], "peft_type": "LORA",
            "none": None, "true": True, "false": False, "empty_list": [], "empty_object": {}, "nested": {"b": {"a": [[], {}]}},
            "é": "\u007f\u0080 日本 \U0001f600", "Z": "\" \\ / \b \f \n \r \t \u0001 <>", "\U0001f600": 1, "\ue000": 2,
            "big": [2**63, -(2**63), 2**64 - 1], "floats": floats,
        },
        indent=2,
        sort_keys=True,
    )
)

for path in out.glob("io_*/*"):  # safetensors keeps its files to their owner
    path.chmod(0o644)
for path in out.glob("io_*.safetensors"):
    path.chmod(0o644)
