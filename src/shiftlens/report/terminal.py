"""Prints the closing summary in the terminal: what was found, and where to read more."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shiftlens.results.analysis import Analysis
from shiftlens.results.sentence import effect, groups, p_value, untestable


def print_summary(analysis: Analysis, paths: Iterable[Path], console: Console) -> None:
    """Print the findings as a table, those that could not be tested by reason, then the files written.

    Args:
        analysis: The run.
        paths: Files to point to, in the order to show them.
        console: Where to print.

    Example:
        >>> print_summary(Analysis([], {}), [Path("report.html")], Console(width=40))
        No findings.
        Written:
          report.html
    """
    if analysis.findings:
        table = Table(title="What changed")
        table.add_column("finding", overflow="fold")
        table.add_column("data")
        table.add_column("n", justify="right", no_wrap=True)
        table.add_column("groups: mean ± std (n)")
        table.add_column("effect [95 % CI]")
        table.add_column("p", justify="right", no_wrap=True)
        table.add_column("corrected", justify="right", no_wrap=True)
        table.add_column("verdict")
        tested = [finding for finding in analysis.findings if finding.testable]
        for finding in tested:
            # Text, not str: names and notes must not be read as rich markup.
            p, size = p_value(finding.p).removeprefix("= "), effect(finding)
            corrected = "–" if finding.p_corrected is None else p_value(finding.p_corrected).removeprefix("= ")
            cells = [finding.name, finding.data, str(finding.n), "\n".join(groups(finding)), size, p, corrected]
            cells.append(finding.verdict)
            table.add_row(*(Text(cell) for cell in cells))
        if tested:
            console.print(table)
        for why, same in untestable(analysis.findings).items():
            console.print(Text(f"Not testable ({why}): " + ", ".join(f"{f.name} on {f.data}" for f in same)))
    else:
        console.print("No findings.")
    console.print("Written:")
    for path in paths:
        # Never wrapped, so that a path can be copied.
        console.print(Text(f"  {path}"), soft_wrap=True)
