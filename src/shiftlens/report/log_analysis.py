"""Sends an analysis to every sink: a loop over its sections."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import plotly.graph_objects as go
from lightning.pytorch.utilities import rank_zero_only

from shiftlens.report.sink import Entry, Sink
from shiftlens.report.write_tables import all_tables
from shiftlens.results.analysis import Analysis

NUMBERS = ("p", "p_corrected", "effect")
"""Numbers of a finding that loggers get."""


def scalars(analysis: Analysis) -> dict[str, float]:
    """The numbers of a run under stable names; what is not known has no entry.

    Sections give their own; each finding gives ``findings/<name>/<data>/p``, ``.../p_corrected``,
    ``.../effect`` and ``.../stands``, which is 1 where the null hypothesis is rejected by the rule of
    :attr:`~shiftlens.results.finding.Finding.stands`, else 0.

    Args:
        analysis: The run.

    Example:
        >>> from shiftlens.results.section import Section
        >>> scalars(Analysis([Section(scalars={"shift/instruction_score": 0.5})], {}))
        {'shift/instruction_score': 0.5}
    """
    values = {name: value for section in analysis.sections for name, value in section.scalars.items()}
    for finding in analysis.findings:
        record, start = finding.to_dict(), f"findings/{finding.name}/{finding.data}"
        values |= {f"{start}/{key}": float(record[key]) for key in NUMBERS if record[key] is not None}
        if finding.testable:
            values[f"{start}/stands"] = float(finding.stands)
    return values


@rank_zero_only
def log_analysis(
    analysis: Analysis, sinks: Sequence[Sink], report: Path | str | None = None, step: int | None = None
) -> None:
    """Log an analysis once, as one step, to every sink: numbers, verdicts, tables, figures, maps and the report.

    Args:
        analysis: The run.
        sinks: Sinks that have started, perhaps none.
        report: The HTML report, ``None`` if none was written.
        step: Optimizer step of a training; ``None`` for a run without steps.
    """
    if not sinks:
        return
    entry = Entry(
        scalars=scalars(analysis),
        texts={f"findings/{f.name}/{f.data}/verdict": f.verdict for f in analysis.findings},
        tables=all_tables(analysis),
        figures=partial(_figures, analysis),
        files={} if report is None else {"report": Path(report)},
        record={} if step is not None else {"provenance": analysis.provenance},
    )
    for sink in sinks:
        sink.log(entry, step)


def _figures(analysis: Analysis) -> dict[str, go.Figure]:
    charts = {f"charts/{name}": fig for section in analysis.sections for name, fig in section.figures.items()}
    for section in analysis.sections:
        charts |= section.gallery()
    return charts
