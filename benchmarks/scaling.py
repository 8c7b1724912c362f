"""Measures the time of each mode against N and M, and the peak memory: ``python benchmarks/scaling.py``.

Writes docs/performance-scaling.svg. The time of an engine should be proportional to its token rows: N (N/2 + M) in
forward mode, M (N + M/2) in reverse mode, N M in mixed mode. A straight line fitted to each mode shows how well
this holds. The exit code is 1 if a text of 256/128 tokens needs more than 2.5 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from attribution import WARM_UP, real
from contender import HERE, Worker
from jaxtyping import Float
from matplotlib import pyplot as plt
from report import machine

GRID = ["16/16", "16/64", "16/256", "64/16", "64/64", "64/256", "128/16", "128/64", "256/16", "256/64"]
ROWS: dict[str, tuple[str, Callable[[int, int], float]]] = {
    "forward": ("N (N/2 + M)", lambda N, M: N * (N / 2 + M)),
    "reverse": ("M (N + M/2)", lambda N, M: M * (N + M / 2)),
    "mixed": ("N M", lambda N, M: N * M),
}
MODES = tuple(ROWS)
LONG, MOST_BYTES = "256/128", 2.5e9


@dataclass(frozen=True)
class Point:
    """Median time, in seconds, of one mode at one shape."""

    mode: str
    prompt: int
    response: int
    rows: float
    seconds: float


@dataclass(frozen=True)
class Line:
    """Fitted line ``seconds = row * rows + fixed``, by least squares of relative errors.

    Args:
        row: Seconds per token row.
        fixed: Seconds that do not depend on the number of rows.
        off: Median relative error of the fit.
    """

    row: float
    fixed: float
    off: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=GRID)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-memory", action="store_true", help=f"without the text of {LONG} tokens")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "performance-scaling.svg")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.no_peers = True
    points = measure(options)
    lines = {mode: fit([point for point in points if point.mode == mode]) for mode in MODES}
    for mode, line in lines.items():
        print(f"{mode}: {line.row * 1e3:.3f} ms a row, {line.fixed:.2f} s fixed; median error {line.off:.0%}")
    draw(points, lines, options.out)
    print(options.out)
    memory = None if options.no_memory else peak(options)
    if options.json:
        record = {"machine": machine(options.threads), "points": [asdict(point) for point in points]}
        record |= {"lines": {mode: asdict(line) for mode, line in lines.items()}, "peak_bytes": memory}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if memory is not None:
        print(f"{LONG}: {memory / 1e9:.2f} GB at most")
        if memory > MOST_BYTES:
            raise SystemExit(f"more than {MOST_BYTES / 1e9} GB")


def measure(options: argparse.Namespace) -> list[Point]:
    """Return the median time of each mode at each shape; all modes run in turn."""
    setup, texts = real(options)
    times: dict[tuple[str, str], list[float]] = {(shape, mode): [] for shape in options.shapes for mode in MODES}
    with ExitStack() as stack:
        workers = {mode: stack.enter_context(Worker(mode, setup)) for mode in MODES}
        for worker in workers.values():
            worker.ready()
        for worker in workers.values():
            worker.run(texts(*WARM_UP))
        for _ in range(options.rounds):
            for shape, mode in times:
                times[shape, mode].append(workers[mode].run(texts(*map(int, shape.split("/")))).seconds)
    points = []
    for (shape, mode), seconds in times.items():
        N, M = map(int, shape.split("/"))
        points.append(Point(mode, N, M, ROWS[mode][1](N, M), statistics.median(seconds)))
    return points


def peak(options: argparse.Namespace) -> int:
    """Return the peak resident memory, in bytes, of a new process that explains one long text with ``auto``."""
    setup, texts = real(options)
    with Worker("auto", setup) as worker:
        worker.ready()
        worker.run(texts(*WARM_UP))
        return worker.run(texts(*map(int, LONG.split("/")))).peak


def fit(points: Sequence[Point]) -> Line:
    """Fit a straight line to times against rows by least squares of relative errors.

    Example:
        >>> line = fit([Point("forward", 1, 1, rows, 2 * rows + 5) for rows in (1, 10, 100)])
        >>> round(line.row, 6), round(line.fixed, 6), round(line.off, 6)
        (2.0, 5.0, 0.0)
    """
    rows, seconds = _arrays(points)
    design = np.stack([rows, np.ones_like(rows)], axis=1)
    row, fixed = np.linalg.lstsq(design / seconds[:, None], np.ones_like(seconds), rcond=None)[0]
    off = np.abs(row * rows + fixed - seconds) / seconds
    return Line(float(row), float(fixed), float(np.median(off)))


def _arrays(points: Sequence[Point]) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    return np.array([float(p.rows) for p in points]), np.array([float(p.seconds) for p in points])


def draw(points: Sequence[Point], lines: dict[str, Line], out: Path) -> None:
    """Plot time against rows on logarithmic axes, one panel per mode; colours show N, labels show M."""
    mpl.rcParams["svg.hashsalt"] = "shiftlens"  # makes the file the same for the same numbers
    figure, panels = plt.subplots(1, len(lines), figsize=(12, 3.8), sharex=True, sharey=True, layout="constrained")
    prompts = sorted({point.prompt for point in points})
    for panel, (mode, line) in zip(panels, lines.items(), strict=True):
        mode_points = [point for point in points if point.mode == mode]
        rows, _ = _arrays(mode_points)
        grid = np.geomspace(rows.min(), rows.max(), 100)
        panel.plot(grid, line.row * grid + line.fixed, color="0.6", linewidth=1, zorder=1)
        for color, prompt in enumerate(prompts):
            some = [point for point in mode_points if point.prompt == prompt]
            panel.scatter(*_arrays(some), color=f"C{color}", label=f"N = {prompt}", zorder=2)
        for point in mode_points:
            where = (point.rows, point.seconds)
            panel.annotate(f"M={point.response}", where, xytext=(5, -9), textcoords="offset points", fontsize=7)
        panel.set(xscale="log", yscale="log", xlabel=f"token rows, {ROWS[mode][0]}")
        panel.set_title(f"{mode}: {line.row * 1e3:.2f} ms a row + {line.fixed:.2f} s", fontsize=10)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds")
    panels[0].legend(frameon=False, fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
