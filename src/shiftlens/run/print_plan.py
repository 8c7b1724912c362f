"""Prints the forecast of a run as a table and in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shiftlens.run.dry_run import PlannedWork

_COLUMNS = ("model", "analysis", "method", "samples", "N", "M", "rows", "FLOP", "memory", "time")


def print_plan(plan: Sequence[PlannedWork], assumed: Sequence[str], console: Console) -> None:
    """Print a line for each model, analysis and method, the assumptions, and a summary in plain words.

    Args:
        plan: Work of the run.
        assumed: One sentence for each assumption.
        console: Where to print.

    Example:
        >>> print_plan([], [], Console(width=80))
        Dry run: nothing to explain. Nothing was loaded, computed or logged.
    """
    if not plan:
        console.print("Dry run: nothing to explain. Nothing was loaded, computed or logged.")
        return
    table = Table(title="What this run would explain")
    for number, column in enumerate(_COLUMNS):
        if number < 3:
            table.add_column(column)
        else:
            table.add_column(column, justify="right", no_wrap=True)
    for line in plan:
        work = line.work
        cells = [
            line.role,
            line.analysis,
            line.method,
            str(work.samples),
            _mean(work.prompt_tokens, work.samples),
            _mean(work.response_tokens, work.samples),
            f"{work.rows:,}",
            f"{work.operations:.1e}",
            f"{work.memory / 1e9:.2g} GB",
            f"{work.relative:.2g} x" if work.seconds is None else _duration(work.seconds),
        ]
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    console.print(
        "N prompt and M response tokens: means over the samples. rows: token rows in each layer. memory: weights "
        "and one derivative. time x: not measured here; multiples of the gradient's.",
        soft_wrap=True,
    )
    for sentence in assumed:
        console.print(Text(f"Assumed: {sentence}."), soft_wrap=True)
    console.print(Text(summary(plan)), soft_wrap=True)


def summary(plan: Sequence[PlannedWork]) -> str:
    """Say in plain words how much work a run is.

    Args:
        plan: Work of the run, at least one line.
    """
    samples, operations = sum(each.work.samples for each in plan), sum(each.work.operations for each in plan)
    known = [each.work.seconds for each in plan if each.work.seconds is not None]
    if len(known) == len(plan):
        time = f"about {_duration(sum(known))} on this machine, by its measured costs"
    else:
        time = "time not measured on this machine, so given relative to the gradient"
    memory = max(each.work.memory for each in plan) / 1e9
    return (
        f"Dry run: {samples} explanations, {operations:.2g} floating point operations, at least {memory:.2g} GB "
        f"of memory; {time}; writing the responses comes on top. Nothing was loaded, computed or logged."
    )


def _mean(tokens: int, samples: int) -> str:
    return f"{tokens / samples:.0f}"


def _duration(seconds: float) -> str:
    """Write a time in the largest unit of which there is at least one and a half.

    Example:
        >>> _duration(0.2), _duration(200.0), _duration(20_000.0)
        ('0.2 s', '3.3 min', '5.6 h')
    """
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"
