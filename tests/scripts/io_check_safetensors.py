#!/usr/bin/env python3
"""Reads safetensors files that lowrank wrote with the reference implementation, and compares what that writes again.

usage: io_check_safetensors.py FILE...
e.g. LOWRANK_TEST_OUTPUT=/tmp build/tests/test_io_safetensors_writer && io_check_safetensors.py /tmp/written.safetensors
"""

import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save

for name in sys.argv[1:]:
    tensors = load_file(name)
    with safe_open(name, framework="pt") as file:
        metadata = file.metadata()
    for key in sorted(tensors):
        print(f"{name}: {key!r} {tensors[key].dtype} {list(tensors[key].shape)}")
    # The reference writes several metadata entries in no particular order.
    if len(metadata or {}) <= 1 and save(tensors, metadata) != Path(name).read_bytes():
        sys.exit(f"{name}: the reference writes the same tensors differently")
    print(f"{name}: {len(tensors)} tensors, read and written equally")
