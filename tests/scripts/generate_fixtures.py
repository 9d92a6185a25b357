#!/usr/bin/env python3
"""Makes tests/fixtures/generate_sampler.json: what Transformers' logits processors leave of some logits.

usage: generate_fixtures.py [OUTPUT.json]
"""

import json
import sys
from pathlib import Path

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

output = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "fixtures/generate_sampler.json")
torch.manual_seed(7)
settings = [
    {},
    {"temperature": 0.5},
    {"temperature": 1.7},
    {"top_k": 1},
    {"top_k": 4},
    {"top_k": 100},
    {"top_p": 0.05},
    {"top_p": 0.6},
    {"top_p": 0.95},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"top_k": 3, "top_p": 0.7},
    {"temperature": 2.0, "top_p": 0.6},
    {"repetition_penalty": 1.5, "temperature": 0.7, "top_k": 6, "top_p": 0.8},
    {"min_p": 0.05},
    {"min_p": 0.4},
    {"min_p": 1.0},
    {"temperature": 0.6, "min_p": 0.1},
    {"temperature": 1.5, "top_k": 8, "top_p": 0.9, "min_p": 0.2},
    {"repetition_penalty": 1.4, "temperature": 1.3, "top_p": 0.99, "min_p": 0.03},
]
cases = []
for options in settings:
    logits = (1.5 * torch.randn(1, 12)).round(decimals=3)
    past = torch.randint(0, 12, (1, 5))
    if options == {"top_k": 4}:
        logits[0, :6] = logits.max()  # the fourth equals the fifth and the sixth
    processors = LogitsProcessorList()
    if "repetition_penalty" in options:
        processors.append(RepetitionPenaltyLogitsProcessor(options["repetition_penalty"]))
    if "temperature" in options:
        processors.append(TemperatureLogitsWarper(options["temperature"]))
    if "top_k" in options:
        processors.append(TopKLogitsWarper(options["top_k"]))
    if "top_p" in options:
        processors.append(TopPLogitsWarper(options["top_p"]))
    if "min_p" in options:
        processors.append(MinPLogitsWarper(options["min_p"]))
    probabilities = processors(past, logits.clone()).double().softmax(-1)
    cases.append(
        {
            "options": options,
            "past": past[0].tolist(),
            "logits": [round(x, 3) for x in logits[0].tolist()],
            "probabilities": [round(x, 7) for x in probabilities[0].tolist()],
        }
    )
output.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
