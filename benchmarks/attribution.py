"""Compares ShiftLens' engines with Inseq, Captum and the naive loop: ``python benchmarks/attribution.py``.

All contenders use the same model (SmolLM2-135M, float32), token ids and number of threads. Each has its own
process; all are loaded at once and run in turn (A B C A B C). Results are checked before times are compared: every
contender is compared with float64 at every response token, and a contender whose error exceeds the tolerance gets
no ratio.

In float32, the naive loop and the peers lose digits twice where the engines do not: in ``1 - p``, computed from a
rounded p, and in the product of a single row with the output layer. The tolerance allows for that. The engines
have a stricter tolerance; if one exceeds it, the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from contender import ENGINES, HERE, OURS, PEERS, Found, Setup, Worker, peers_python
from flops import sgemm
from judge import Result, judge
from passage import passage
from report import machine, print_shape
from serve import Task
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import shiftlens as sl
from shiftlens.models import resolve
from shiftlens.support.cache_path import cache_dir

SHAPES, QUICK_SHAPES = ["30/300", "64/32", "128/64"], ["20/18"]
WARM_UP = (6, 4)
ENGINE_TOLERANCE = 3e-4
"""Largest float32 error of an engine, relative to each column's largest entry; the tests use the same value."""
VOCABULARY = 300

Texts = Callable[[int, int], Task]
"""Function from N and M to a text with N prompt tokens and M response tokens."""


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        setup, texts = tiny(Path(scratch), options.threads) if options.quick else real(options)
        names = [*options.modes, *(PEERS if setup.peers else ())]
        shapes, disagree = {}, []
        for shape in options.shapes:
            task = texts(*map(int, shape.split("/")))
            results, peak = measure(names, task, texts(*WARM_UP), setup, options)
            print_shape(shape, results, peak, options.threads)
            shapes[shape] = {"sgemm": peak, "results": [asdict(result) for result in results]}
            disagree += [
                f"{r.title} at {shape} by {r.error:.1e}"
                for r in results
                if r.name in OURS and r.error > (options.tolerance if r.name == "naive" else ENGINE_TOLERANCE)
            ]
    if options.json:
        record = {"machine": machine(options.threads), "tolerance": options.tolerance, "shapes": shapes}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if disagree:
        raise SystemExit(f"not equal: {', '.join(disagree)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", help=f"prompt/response tokens; default {' '.join(SHAPES)}")
    parser.add_argument(
        "--modes", nargs="+", choices=OURS, default=list(OURS), help="the first is the one timed against"
    )
    parser.add_argument("--no-peers", action="store_true", help="only ShiftLens and the naive loop")
    parser.add_argument("--peers-venv", type=Path, default=HERE / ".venv-peers", help="made where it is missing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--slow-rounds", type=int, default=1, help="rounds of contenders slower than --slow-seconds"
    )
    parser.add_argument("--slow-seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--tolerance", type=float, default=1e-2, help="error, of each column's largest entry, that counts as equal"
    )
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--quick", action="store_true", help="a tiny random model, no peers: numbers, not times")
    options = parser.parse_args()
    if options.rounds < 1 or options.slow_rounds < 1:
        parser.error("--rounds and --slow-rounds are at least 1")
    options.shapes = options.shapes or (QUICK_SHAPES if options.quick else SHAPES)
    return options


def measure(
    names: Sequence[str], task: Task, warm_up: Task, setup: Setup, options: argparse.Namespace
) -> tuple[list[Result], float]:
    """Run all contenders in turn on one text, check their numbers and compare their times.

    Returns:
        One result per contender, and the floating-point operations per second of a large matrix product (the
        median of a measurement before and one after the runs).
    """
    runs: dict[str, list[Found]] = {name: [] for name in names}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, setup)) for name in names}
        titles = {name: worker.ready() for name, worker in workers.items()}
        for name, worker in workers.items():
            worker.run(warm_up)
            if name in ENGINES:  # an engine allocates most of its memory once per text, the others at every token
                worker.run(task)
        peaks = [sgemm(options.threads)]
        for number in range(options.rounds):
            for name, worker in workers.items():
                slow = bool(runs[name]) and runs[name][0].seconds > options.slow_seconds
                if number < (options.slow_rounds if slow else options.rounds):
                    runs[name].append(worker.run(task))
        peaks.append(sgemm(options.threads))
    peak = statistics.median(peaks)
    return judge(runs, titles, task, setup, options.tolerance, peak), peak


def real(options: argparse.Namespace) -> tuple[Setup, Texts]:
    """Return the bundled base model and a function that cuts pieces from a real text."""
    cache = cache_dir()
    folder = resolve(sl.load("bundled:base").identity.source, None, cache).folder
    peers = None if options.no_peers else peers_python(options.peers_venv)
    return Setup(folder, cache, options.threads, peers), partial(passage, AutoTokenizer.from_pretrained(folder))


def tiny(folder: Path, threads: int) -> tuple[Setup, Texts]:
    """Return a small random model, saved in ``folder``, and a function that makes texts of random token ids."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    ids = np.random.default_rng(0).integers(3, VOCABULARY, 1000).tolist()
    return Setup(folder, folder, threads), lambda prompt, response: Task(ids[: prompt + response], response)


if __name__ == "__main__":
    main()
