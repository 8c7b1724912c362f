"""Attribution engines against the naive loop, as ratios within one run: ``python benchmarks/engines.py``.

Same model, same tokens, order A B A B, medians. A ratio without equal numbers is not printed.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

import shiftlens as sl
from shiftlens.attribution import choose, log_gradient

TOLERANCE = 3e-4  # of each column's largest entry, float32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["20/7", "17/32", "64/32"], help="prompt/response tokens")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--template-tokens", type=int, default=28, help="ids in front of the prompt")
    options = parser.parse_args()
    lm = sl.load("bundled:base")
    words = torch.Generator().manual_seed(0)
    table = Table("N / M", "engine", "seconds", "against naive", "auto takes", "largest difference")
    for shape in options.shapes:
        N, M = map(int, shape.split("/"))
        front = options.template_tokens
        ids = torch.randint(100, 20_000, (front + N + 5 + M,), generator=words).tolist()
        sources = list(range(front, front + N))
        seconds: dict[str, list[float]] = {"naive": [], "reverse": [], "forward": []}
        values = {}
        for _ in range(options.repeats):
            for mode, times in seconds.items():
                started = time.perf_counter()
                values[mode], _ = log_gradient(lm.model, ids, sources, M, mode)
                times.append(time.perf_counter() - started)
        slow = statistics.median(seconds["naive"])
        for mode, times in seconds.items():
            off = (values[mode] - values["naive"]).abs().amax(0) / values["naive"].abs().amax(0)
            fast = statistics.median(times)
            ratio = f"{slow / fast:.1f}x" if off.max() < TOLERANCE else "numbers differ"
            table.add_row(shape, mode, f"{fast:.2f}", ratio, choose("auto", N, M), f"{off.max():.1e}")
    Console().print(f"{torch.get_num_threads()} threads, float32, SmolLM2-135M-Instruct", table)


if __name__ == "__main__":
    main()
