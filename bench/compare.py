#!/usr/bin/env python3
"""Measures lowrank beside PyTorch with PEFT, Transformers' generate and Hugging Face tokenizers, and by itself.

A comparison runs in rounds: the machine's peak, ours, the peer, the peer, ours, the peak. A round whose two peaks differ
by more than 5% does not count. A figure is the median over rounds. Each run is a process of its own on all CPUs, and of
training steps two processes take turns step by step; their memory is VmHWM. Writes results.json, results.md and plots as SVG into --output, and with --update the tables into their
places on a page.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

from comparison import model_files, page, plot, rounds
from comparison.paced import Paced
from comparison.processes import Failed, environment_of_python, run

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEER_SETTINGS = {
    "fp32": "PyTorch, fp32",
    "medium": "PyTorch, fp32, matmul precision medium",
    "autocast": "PyTorch, bf16 autocast",
    "bf16": "PyTorch, bf16 model",
}


def arguments():
    names = ",".join(SECTIONS)
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default=ROOT / "build/release", type=Path,
                   help="build folder with the examples and lowrank_bench (build/release)")
    p.add_argument("--work", default=ROOT / "build/compare", type=Path,
                   help="folder for the model, the data and the environment (build/compare)")
    p.add_argument("--venv", type=Path, help="Python environment of the peers; made where absent (WORK/venv)")
    p.add_argument("--output", default=ROOT / "build/compare/results", type=Path, help="folder for what is found")
    p.add_argument("--update", type=Path, help="page to put the tables into; plots go into a folder of its name")
    p.add_argument("--only", default=names, help=f"some of {names}")
    p.add_argument("--rounds", type=int, default=5, help="rounds that count, of each comparison (5)")
    p.add_argument("--tokens", type=int, default=128, help="tokens that a run generates (128)")
    p.add_argument("--dtype", choices=["fp32", "bf16"], help="only rows with ours in this type")
    p.add_argument("--setting", choices=list(PEER_SETTINGS),
                   help="only rows with the peer so set: without instructions for bf16 a step of PyTorch's in it takes minutes")
    p.add_argument("--seed", type=int, default=0, help="of the random weights and tokens (0)")
    p.add_argument("--tokenizer", default=ROOT / "../shared/data/gpt2", type=Path, help="folder with tokenizer.json")
    p.add_argument("--text", default=ROOT / "../shared/data/text/wizard-of-oz.txt", type=Path,
                   help="text to tokenize")  # fmt: skip
    p.add_argument("--compiler", default=os.environ.get("CXX", "g++"), help="compiler to be timed (g++)")
    p.add_argument("--against-itself", action="store_true",
                   help="the peer is lowrank too, so that the ratios should be 1: how fair is the comparison?")
    p.add_argument("--quick", action="store_true", help="tiny sizes and one round, to try the script")
    a = p.parse_args()
    a.only = a.only.split(",")
    if unknown := set(a.only) - set(SECTIONS):
        p.error(f"--only: found {', '.join(sorted(unknown))}, expected some of {names}")
    if a.rounds < 1 or a.tokens < 2:
        p.error("expected at least 1 round and 2 tokens")
    if a.quick:
        a.rounds, a.tokens = 1, 4
    return a


class Runner:
    """What all sections share: programs, files, and the figures found so far."""

    def __init__(self, a):
        self.a = a
        self.found, self.blocks, self.plots = {}, {}, {}
        self.threads = len(os.sched_getaffinity(0))
        self.bench = self.program("bench/lowrank_bench")
        a.work.mkdir(parents=True, exist_ok=True)
        a.output.mkdir(parents=True, exist_ok=True)
        self.shape = model_files.SHAPES["tiny" if a.quick else "124M"]
        self.model = a.work / f"gpt2-{'tiny' if a.quick else '124m'}-seed{a.seed}"
        self.needs_peer = not a.against_itself and SECTIONS_WITH_PEER & set(a.only)
        self.python = None
        if self.needs_peer:
            self.python = environment_of_python(a.venv or a.work / "venv", HERE / "comparison/requirements.txt")

    def program(self, name):
        path = self.a.build / name
        if not path.exists():
            raise SystemExit(f"error: {path}: no such program; build it (-DLOWRANK_BENCHMARKS=ON) or give --build")
        return path

    def say(self, text):
        print(text, flush=True)

    def peak(self, which):
        return lambda: run([self.bench, "--peaks"]).json()[which]

    def has_bf16(self, program):
        return "--dtype" in run([self.program(f"examples/{program}"), "--help"]).output

    def write_model(self):
        self.say(f"writing {self.model} where it is absent")
        model_files.write_model(self.model, self.shape, self.a.seed)

    def compare(self, name, ours, peer, peak="tile_gflops", attempts=3):
        self.say(f"== {name}")
        tolerance = float("inf") if self.a.quick else rounds.TOLERANCE
        result = rounds.compare(ours, peer, self.peak(peak), self.a.rounds, tolerance, self.say, attempts)
        if not result.kept:
            self.say("no round counts: the machine was never steady")
        return result

    def peer(self, what, *options):
        return run([self.python, HERE / "comparison/peer.py", what, "--threads", self.threads, *options])

    def benchmarks(self, filter_, environment=None, seconds=None):
        """What lowrank_bench prints for the benchmarks that match."""
        least = 0.01 if self.a.quick else seconds or 0.5
        command = [self.bench, f"--benchmark_filter={filter_}", "--benchmark_format=json", f"--benchmark_min_time={least}"]
        return run(command, environment).json()["benchmarks"]

    def rows_of(self, program, settings):
        """Pairs (ours, peer) whose type the program has, and --dtype and --setting want."""
        bf16 = self.has_bf16(program)
        wanted = [(dtype, setting) for dtype, setting in settings
                  if (dtype == "fp32" or bf16) and self.a.dtype in (None, dtype) and self.a.setting in (None, setting)]  # fmt: skip
        return wanted[:1] if self.a.quick else wanted

    def peer_name(self, setting):
        return "lowrank, too" if self.a.against_itself else PEER_SETTINGS[setting]

    def command_line(self, section):
        """What was typed, without places, for this section alone."""
        left_out = ("--build", "--work", "--venv", "--output", "--update", "--tokenizer", "--text", "--only")
        shown, words = [], iter(sys.argv[1:])
        for word in words:
            if word in left_out:
                next(words, None)
            elif not word.startswith(tuple(name + "=" for name in left_out)):
                shown.append(word)
        return shlex.join(["bench/compare.py", "--only", section, *shown])


def type_options(dtype):
    return [] if dtype == "fp32" else ["--dtype", dtype]


def figure(value, digits=3):
    """Three digits that count."""
    return "–" if value is None else f"{float(f'{value:.{digits}g}'):,.10g}"


def comparison_rows(results, quantities, rates=()):
    """Rows of a table: for each quantity ours, the peer's and the ratio. `rates` are shown as so many a second."""
    lines, notes = [], []
    for (name, result), mark in zip(results, "¹²³⁴⁵⁶⁷⁸⁹" * 3):
        cells = [name]
        if not result.complete():
            cells[0] += f" {mark}"
            notes.append(f"{mark} only {len(result.kept)} rounds of {result.wanted} were steady enough to count.")
        for quantity in quantities:
            if result.kept:
                values = [result.value(who, quantity) for who in ("ours", "peer")]
                values = [1 / value for value in values] if quantity in rates else values
                cells += [figure(values[0]), figure(values[1]), f"{result.ratio(quantity):.2f}"]
            else:
                cells += ["–", "–", "–"]
        lines.append(cells)
    return lines, "".join(f"\n{note}\n" for note in notes)


def step(r):
    """A LoRA step of GPT-2 124M, its memory, and the time from the start of the process to the end of the first step."""
    a = r.a
    r.write_model()
    finetune = r.program("examples/finetune")

    def ours(dtype, batch, length, data, who):
        log = a.work / f"{who}.jsonl"
        return Paced(
            [finetune, "--model", r.model, "--data", data, "--no-shuffle", "--output", a.work / f"adapter-{who}"]
            + ["--overwrite-output-dir", "--max-steps", 100_000, "--per-device-train-batch-size", batch, "--r", 8]
            + ["--lora-alpha", 16, "--target-modules", "c_attn,c_proj", "--base-dropout", "none"]
            + ["--log-file", log, "--logging-steps", 1, "--threads", r.threads, *type_options(dtype)],
            log,
        )

    def theirs(setting, batch, length, data):
        log = a.work / "peer.jsonl"
        return Paced(
            [r.python, HERE / "comparison/peer.py", "step", "--threads", r.threads, "--model", r.model, "--data", data]
            + ["--batch", batch, "--setting", setting, "--log", log],
            log,
        )

    def quantities(paced):
        seconds = paced.step()
        loss = json.loads(paced.log.read_text().splitlines()[0])["loss"]
        return {"step": seconds, "memory": paced.memory_mb(), "start": paced.start, "loss": loss}

    pairs = [("fp32", "fp32"), ("fp32", "medium"), ("fp32", "autocast"), ("fp32", "bf16"), ("bf16", "autocast"),
             ("bf16", "bf16")]  # fmt: skip
    fewer = [("fp32", "fp32"), ("fp32", "bf16"), ("bf16", "bf16")]
    shapes = {(2, 16): pairs} if a.quick else {(1, 1024): pairs, (4, 256): fewer}
    results = []
    for (batch, length), pairs in shapes.items():
        data = a.work / f"ids{batch}x{length}-{r.model.name}.jsonl"
        model_files.write_ids(data, 2 * batch, length, r.shape["vocab_size"], a.seed)
        for dtype, setting in r.rows_of("finetune", pairs):
            start_peer = partial(ours, dtype) if a.against_itself else partial(theirs, setting)
            who = ("peer",) if a.against_itself else ()
            name = f"{batch}×{length}: ours {dtype}, {r.peer_name(setting)}"
            with ours(dtype, batch, length, data, "ours") as one, start_peer(batch, length, data, *who) as other:
                for paced in () if a.quick else (one, other):
                    paced.step()  # what is slower only once
                result = r.compare(f"LoRA step {name}", partial(quantities, one), partial(quantities, other), attempts=6)
            results.append((name, result))
            if result.kept:
                ours_loss, their_loss = result.value("ours", "loss"), result.value("peer", "loss")
                if abs(ours_loss - their_loss) > (1e-4 if dtype == setting == "fp32" else 1e-2) * their_loss:
                    raise SystemExit(f"error: {name}: losses {ours_loss} and {their_loss}: not the same computation")
    r.found["step"] = {name: result.as_json() for name, result in results}
    rows, notes = comparison_rows(results, ["step", "memory"])
    head = ["batch × length", "s/step", "peer", "ratio", "MB at most", "peer", "ratio"]
    block = page.table(head, rows) + notes
    rows, _ = comparison_rows(results, ["start"])
    block += "\nFrom the start of the process to the end of the first step, files in the page cache:\n\n"
    r.blocks["step"] = block + page.table(["batch × length", "s", "peer", "ratio"], rows)


def decode(r):
    """Greedy tokens of GPT-2 124M behind a short prompt."""
    a = r.a
    r.write_model()
    generate = r.program("examples/generate")
    prompt = "abcdefghijklmnop"
    alphabet = model_files.byte_alphabet()
    ids = json.dumps([alphabet.index(character) for character in prompt])

    def of_two(run_tokens):
        one, many = run_tokens(1), run_tokens(a.tokens)
        seconds = (many.seconds - one.seconds) / (a.tokens - 1)
        return many, {"token": seconds, "memory": many.memory_mb}

    def ours(dtype):
        return of_two(
            lambda tokens: run(
                [generate, "--model", r.model, "--prompt", prompt, "--greedy", "--max-new-tokens", tokens]
                + ["--threads", r.threads, *type_options(dtype)]
            )
        )[1]

    def theirs(setting):
        many, result = of_two(
            lambda tokens: r.peer("decode", "--model", r.model, "--prompt", ids, "--tokens", tokens, "--setting", setting)
        )
        return {**result, "inside": many.json()["seconds"][0]}

    results = []
    for dtype, setting in r.rows_of("generate", [("fp32", "fp32"), ("fp32", "bf16"), ("bf16", "bf16")]):
        run_ours = partial(ours, dtype)
        run_peer = run_ours if a.against_itself else partial(theirs, setting)
        name = f"ours {dtype}, {r.peer_name(setting)}"
        results.append((name, r.compare(f"decoding {name}", run_ours, run_peer, "read_gbs")))
    r.found["decode"] = {name: result.as_json() for name, result in results}
    rows, notes = comparison_rows(results, ["token", "memory"], rates=["token"])
    r.blocks["decode"] = (
        page.table(["one text, greedy", "tokens/s", "peer", "ratio", "MB at most", "peer", "ratio"], rows) + notes
    )


def tokenizer(r):
    """GPT-2's tokenizer on one thread. Where the text or tokenizer.json is absent, only ours is measured."""
    a = r.a
    both = a.text.exists() and (a.tokenizer / "tokenizer.json").exists()
    if not both:
        r.say(f"skipped: tokenizers side by side, for {a.text} or {a.tokenizer}/tokenizer.json is absent")
        r.blocks["tokenizer"] = bench_table(r.benchmarks("^(encode|load_tokenizer)"), r, "tokenizer")
        return
    environment = {"LOWRANK_BENCH_TEXT": str(a.text.resolve()), "LOWRANK_BENCH_TOKENIZER": str(a.tokenizer.resolve())}

    def ours():
        found = {}
        for b in r.benchmarks("^encode", {**environment, "LOWRANK_NUM_THREADS": "1"}):
            name = b["name"].split("/")[1]
            found[name] = 1 / b["MB/s"]
            found[name + "_tokens"] = b["tokens"]
        return found

    def theirs():
        found = r.peer("tokenizer", "--tokenizer", a.tokenizer, "--text", a.text).json()
        return {
            **{name: 1 / found[name]["mb_per_second"] for name in ("text", "lines")},
            **{name + "_tokens": found[name]["tokens"] for name in ("text", "lines")},
        }

    result = r.compare("tokenizer", ours, ours if a.against_itself else theirs)
    r.found["tokenizer"] = result.as_json()
    rows = []
    for name, what in (("text", "the whole text"), ("lines", "line by line")) if result.kept else ():
        tokens = [int(result.value(who, name + "_tokens")) for who in ("ours", "peer")]
        if tokens[0] != tokens[1]:
            raise SystemExit(f"error: tokenizer, {what}: {tokens[0]} and {tokens[1]} tokens, expected equal numbers")
        speed = [figure(1 / result.value(who, name)) for who in ("ours", "peer")]
        rows.append([what, *speed, f"{result.ratio(name):.1f}", f"{tokens[0]:,}"])
    peer = "lowrank, too" if a.against_itself else "Hugging Face tokenizers"
    name = f"{a.text.name}, one thread"
    r.blocks["tokenizer"] = page.table([name, "MB/s", f"MB/s, {peer}", "ratio", "tokens of both"], rows)


def bench_table(found, r, section):
    """What lowrank_bench found, as it is: rates beside the peaks of the same moment."""
    r.found[section] = found
    rows = []
    for b in found:
        unit = next((unit for unit in ("GFLOP/s", "GB/s", "MB/s") if unit in b), None)
        rows.append([
            b["name"].removesuffix("/manual_time"),
            figure(1e3 * b["best_s"]),
            f"{figure(b[unit])} {unit}" if unit else "–",
            figure(b["peak"]) if "peak" in b else "–",
            f"{100 * b['of_peak']:.0f}%" if "peak" in b else "–",
        ])  # fmt: skip
    return page.table(["lowrank_bench", "ms at best", "reached", "peak then", "of it"], rows)


def start(r):
    """From exec to the end of the first step on the demo's model; loading 124M parameters and attaching adapters."""
    a = r.a
    demo = ROOT / "examples/demo"
    command = [r.program("examples/finetune"), "--model", demo / "model", "--data", demo / "train.jsonl", "--max-steps", 1]
    command += ["--output", a.work / "adapter", "--overwrite-output-dir"]
    times = [run(command).seconds for _ in range(2 if a.quick else 11)]
    found = r.benchmarks("^load_tokenizer" if a.quick else "^(load_124m|attach_124m|load_tokenizer)")
    r.blocks["start"] = (
        f"`finetune` on the demo's model with `--max-steps 1`, from exec to its end, median of {len(times)}: "
        f"{figure(1e3 * median(times))} ms, at best {figure(1e3 * min(times))} ms.\n\n"
    ) + bench_table(found, r, "start")
    r.found["start"] = {"demo_first_step_seconds": times, "benchmarks": found}


def kernels(r):
    """Kernels, a step and decoding beside the peaks of the same moment."""
    quick = "^(add|matmul/attn.c_proj/forward/m:(1|256))/"
    whole = "^(matmul|matmul_bf16|attend|attend_bf16|add|gelu_tanh|softmax_rows|layer_norm_rows|adamw|decode)/|^lora_step(_bf16)?/batch:(1/length:1024|4/length:256)/"
    r.blocks["kernels"] = bench_table(r.benchmarks(quick if r.a.quick else whole), r, "kernels")


def ops(r):
    """Every op of the list that the tests check beside PyTorch's: the best of two runs of each, taken in turns."""
    ways = ("forward", "forward_and_backward")

    def ours():
        found = {}
        for b in r.benchmarks("^op/(exp|softmax)/" if r.a.quick else "^op/", seconds=0.1):
            _, name, way, *_ = b["name"].split("/")
            found.setdefault(name, {})[way] = b["best_s"]
            if way == "forward":
                read[name] = max(b["of_peak"], read.get(name, 0))
        return found

    def theirs():
        return run([r.python, HERE / "comparison/peer_ops.py", "--threads", r.threads]).json()

    def best(runs):
        return {name: {way: min(one[name][way] for one in runs) for way in ways} for name in runs[0]}

    read = {}
    runs = [who() for who in ((ours,) * 2 if r.a.against_itself else (ours, theirs, theirs, ours))]
    one, other = best([runs[0], runs[-1]]), best(runs[1:-1] or runs)
    if one.keys() != other.keys():
        raise SystemExit(f"error: ops that only one side has: {', '.join(sorted(one.keys() ^ other.keys()))}")
    r.found["ops"] = {"ours": one, "peer": other, "of_read_bandwidth": read}
    rows = []
    for name in one:
        times = [t for way in ways for t in (one[name][way], other[name][way])]
        shown = [figure(1e3 * t) for t in times]
        rows.append([name, *shown[:2], f"{times[1] / times[0]:.2f}", f"{100 * read[name]:.0f}%", *shown[2:], f"{times[3] / times[2]:.2f}"])
    peer = r.peer_name("fp32").removesuffix(", fp32")
    head = ["op", "forward, ms", peer, "ratio", "of reading", "and backward, ms", peer, "ratio"]
    r.blocks["ops"] = page.table(head, rows)


def plots(r):
    """What a LoRA step costs by one number after the other."""
    found = r.benchmarks("^lora_step/batch:1/length:512/r:8/layers:2/" if r.a.quick else "^lora_step/")
    r.found["plots"] = found
    points = []
    for b in found:
        numbers = dict(part.split(":") for part in b["name"].split("/")[1:] if ":" in part)
        points.append(({name: int(value) for name, value in numbers.items()}, b["best_s"]))
    base = {"batch": 1, "length": 512, "r": 8, "layers": 12, "width": 768}
    if r.a.quick:
        base = {**points[0][0]}
    lines = []
    for axis in ("length", "batch", "r", "layers", "width"):
        others = {**base, "length": 128} if axis == "batch" and not r.a.quick else base
        line = [(p[axis], s) for p, s in points if all(p[name] == others[name] for name in others if name != axis)]
        fixed = ", ".join(f"{name} {others[name]}" for name in others if name != axis)
        name = f"step-by-{'rank' if axis == 'r' else axis}.svg"
        r.plots[name] = plot.line_chart(f"A LoRA step ({fixed})", "rank" if axis == "r" else axis, "seconds", [("", line)])
        lines.append(f"![A LoRA step by {'rank' if axis == 'r' else axis}](FOLDER/{name})")
    r.blocks["plots"] = "\n".join(lines) + "\n"


def compile_time(r):
    """Processor seconds of compiling."""
    command = [HERE / "compile_time.sh", "--compiler", r.a.compiler]
    if r.a.quick:
        command.append("--quick")
    python = r.a.venv or r.a.work / "venv"
    torch = sorted(python.glob("lib/python*/site-packages/torch/include"))
    if torch and not r.a.quick:
        command += ["--torch", torch[0]]
    lines = [line.split("\t") for line in run(command).output.strip().splitlines()]
    r.found["compile"] = {what: float(seconds) for seconds, what in lines}
    r.blocks["compile"] = page.table(["compiled", "processor seconds"], [[what, seconds] for seconds, what in lines])


SECTIONS = {
    "step": step,
    "decode": decode,
    "tokenizer": tokenizer,
    "start": start,
    "kernels": kernels,
    "ops": ops,
    "plots": plots,
    "compile": compile_time,
}
SECTIONS_WITH_PEER = {"step", "decode", "tokenizer", "ops"}


def machine():
    """What it ran on."""
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]  # fmt: skip
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024 / 1e9
    count = len(os.sched_getaffinity(0))
    return f"{names[0] if names else platform.machine()}, {count} CPU{'s' if count > 1 else ''}, {memory:.0f} GB"


def main():
    a = arguments()
    r = Runner(a)
    about = {"machine": machine(), "arguments": sys.argv[1:]}
    about["compiler"] = subprocess.run([a.compiler, "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    if r.python:
        about["peers"] = r.peer("versions").json()
    peers = ", ".join(f"{name} {version}" for name, version in about.get("peers", {}).items())
    against = SECTIONS_WITH_PEER if peers else set()
    for section in a.only:
        SECTIONS[section](r)
        origin = f"`{r.command_line(section)}`" + (f" with {peers}" if section in against else "")
        r.blocks[section] += f"\nPrinted by {origin}, on {about['machine']}.\n"
        # What is there is kept, should a later section fail.
        (a.output / "results.json").write_text(json.dumps({**about, **r.found}, indent=1) + "\n")
        text = "\n".join(f"## {name}\n\n{block}" for name, block in r.blocks.items())
        (a.output / "results.md").write_text(text.replace("FOLDER/", ""))
        for name, svg in r.plots.items():
            (a.output / name).write_text(svg)
    print((a.output / "results.md").read_text())
    if a.update:
        folder = a.update.with_suffix("")
        page.update(a.update, {name: block.replace("FOLDER", folder.name) for name, block in r.blocks.items()})
        if r.plots:
            folder.mkdir(exist_ok=True)
        for name in r.plots:
            shutil.copy(a.output / name, folder / name)
    print(f"written to {a.output}" + (f" and {a.update}" if a.update else ""))


if __name__ == "__main__":
    try:
        main()
    except (Failed, subprocess.CalledProcessError) as failed:
        sys.exit(f"error: {failed}")
