"""Prints the tables of the attribution benchmark and describes the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

from judge import Result
from rich.console import Console
from rich.table import Table


def machine(threads: int) -> dict[str, str | int]:
    """Return what timings depend on besides the code: processor, cores, threads and library versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers")},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def print_shape(shape: str, results: Sequence[Result], peak: float, threads: int) -> None:
    """Print the table of one shape: errors first, then times, then memory.

    Args:
        shape: Numbers of prompt and response tokens, as ``N/M``.
        results: Results of all contenders; times are compared with the first.
        peak: Floating-point operations per second of a large matrix product.
        threads: Number of threads of each contender.
    """
    table = Table(
        *(
            "contender",
            "way",
            "error",
            "median error",
            "seconds",
            "runs",
            "ratio",
            "memory",
            "above model",
            "of peak",
        ),
        title=f"{shape} prompt/response tokens, {threads} threads, sgemm {peak / 1e9:.0f} GFLOP/s",
        caption="error: against float64, of the column's largest entry, worst and median column; "
        f"ratio: time by that of {results[0].title}; of peak: needed operations per second by sgemm",
    )
    for result in results:
        table.add_row(
            result.title,
            result.mode,
            f"{result.error:.1e}",
            f"{result.median_error:.1e}",
            f"{result.seconds:.3f}",
            str(len(result.times)),
            f"not equal: {result.error:.1e}" if result.ratio is None else f"{result.ratio:.2f}",
            f"{result.peak / 1e6:.0f} MB",
            f"{max(result.peak - result.loaded, 0) / 1e6:.0f} MB",
            f"{result.share:.0%}",
        )
    console = Console()
    Console(width=max(console.width, 130)).print(table)
