"""The closing summary in the terminal: what was found, and where to read more."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shiftlens.evidence.analysis import Analysis
from shiftlens.report.sentences import effect, groups, p_value


def print_summary(analysis: Analysis, paths: Iterable[Path], console: Console) -> None:
    """Print the findings as a table, then the files written.

    Args:
        analysis: the run.
        paths: files to point to, in the order to show them.
        console: where to print.

    Example:
        >>> import pandas as pd
        >>> none = pd.DataFrame()
        >>> print_summary(Analysis([], none, none, none, [], {}), [Path("report.html")], Console(width=40))
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
        for finding in analysis.findings:
            # Text, not str: names and notes must not be read as rich markup.
            p = p_value(finding.p).removeprefix("= ") if finding.testable else "–"
            size = effect(finding) if finding.testable else finding.note or "not testable"
            corrected = "–" if finding.p_corrected is None else p_value(finding.p_corrected).removeprefix("= ")
            cells = [finding.name, finding.data, str(finding.n), "\n".join(groups(finding)), size, p, corrected]
            cells.append(finding.verdict)
            table.add_row(*(Text(cell) for cell in cells))
        console.print(table)
    else:
        console.print("No findings.")
    console.print("Written:")
    for path in paths:
        # Never wrapped, so that a path can be copied.
        console.print(Text(f"  {path}"), soft_wrap=True)
