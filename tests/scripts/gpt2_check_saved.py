#!/usr/bin/env python3
"""Opens GPT-2 directories that lowrank saved in Transformers, and compares the logits with the fixtures' references.

usage: gpt2_check_saved.py DIRECTORY   (it holds gpt2_NAME/ directories)
e.g. LOWRANK_TEST_OUTPUT=/tmp/saved build/tests/test_models_gpt2_files && gpt2_check_saved.py /tmp/saved
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

fixtures = Path(__file__).parent.parent / "fixtures"
for directory in sorted(Path(sys.argv[1]).glob("gpt2_*")):
    model, report = GPT2LMHeadModel.from_pretrained(directory, dtype=torch.float64, output_loading_info=True)
    problems = {kind: keys for kind, keys in report.items() if keys}
    reference = load_file(fixtures / directory.name / "reference.safetensors")
    with torch.no_grad():
        logits = model.eval()(reference["input_ids"]).logits
    error = (logits - reference["logits"]).abs().max() / reference["logits"].abs().max()
    print(f"{directory.name}: logits differ by {error:.1e} {problems or ''}")
    if problems or error > 1e-6:
        sys.exit(1)
