"""Compares half precision, hand-written and generic, with float32: ``python benchmarks/half.py --shapes 30/300``.

All contenders share one process and one text and run in turn (A B C A B C). Their agreement with float32 is
printed beside their times, each the median over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from passage import passage

import shiftlens as sl
from shiftlens.attribution.modes.mixed import mixed
from shiftlens.attribution.plan.cost import UNMEASURED, best_cut
from shiftlens.scores import score

CONTENDERS = {"float32": ("float32", True), "bfloat16": ("bfloat16", True), "generic": ("bfloat16", False)}
"""Name -> data type, and whether derivatives are hand-written."""


def compare(shape: str, rounds: int, device: str) -> None:
    """Print agreement with float32 and seconds of each contender, mixed mode, on one text of N/M tokens."""
    prompt, response = map(int, shape.split("/"))
    models = {
        dtype: sl.load("bundled:base", dtype=dtype).model.to(device).requires_grad_(False)
        for dtype in ("float32", "bfloat16")
    }
    ids = torch.tensor(passage(sl.load("bundled:base").tokenizer, prompt, response).ids)
    cut, _ = best_cut(UNMEASURED, range(prompt), prompt + response, response)
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    values = {}
    for _ in range(rounds + 1):
        for name, (dtype, written_out) in CONTENDERS.items():
            start = time.perf_counter()
            # The numbers return to the CPU, so a GPU's queue is empty when the clock stops.
            found, _ = mixed(
                models[dtype], ids, torch.arange(prompt), response, 1024 if written_out else 16, cut=cut,
                written_out=written_out,
            )  # fmt: skip
            seconds[name].append(time.perf_counter() - start)
            values[name] = found.numpy() / np.abs(found.numpy()).max(0)
    for name in CONTENDERS:
        correlation = np.corrcoef(values[name].ravel(), values["float32"].ravel())[0, 1]
        same = (score(values[name], 10, 0) == score(values["float32"], 10, 0)).mean()
        median = statistics.median(seconds[name][1:])  # the first round warms up
        print(f"{shape:>8} {name:10} correlation {correlation:.5f}  same score {same:.4f}  {median:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["30/300"], help="prompt/response tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for shape in options.shapes:
        compare(shape, options.rounds, options.device)
