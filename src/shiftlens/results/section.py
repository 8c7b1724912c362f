"""What one analysis contributes to a run: findings, tables, figures and its part of the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go

from shiftlens.results.finding import Finding
from shiftlens.results.verdict import judge


@dataclass(frozen=True)
class Tile:
    """A number of both models, shown large on top of the page.

    Args:
        label: What the number is.
        before: Its value for the base, or before tuning, as text.
        after: Its value for the tuned model, as text.
        detail: A line in small print, e.g. intervals.
    """

    label: str
    before: str
    after: str
    detail: str = ""


def _no_figures() -> Mapping[str, go.Figure]:
    return {}


@dataclass(frozen=True)
class Section:
    """Everything that one analysis found, ready for page, loggers, tables and terminal.

    Findings without a verdict are judged here, by :func:`shiftlens.results.verdict.judge` with the controls they
    carry, so every finding of a section has one.

    Args:
        findings: Its tests.
        tables: Its tables by name; written as ``tables/NAME.parquet``. Names are unique within a run.
        title: Heading on the page; ``""`` leaves the section off the page.
        lead: One or two sentences below the heading.
        figures: Plotly figures by stable name, built from lists and not from arrays. Loggers get them as
            ``charts/NAME``; on the page, ``html`` says where each is drawn
            (``<div class="figure" id="figure-NAME">``), and the others follow it in order.
        html: Body of the section: ``Markup`` made by :func:`shiftlens.results.render.render`, or text, which
            is escaped.
        rank: Place on the page; sections of equal rank keep the order of the run. 10 to 40 are the
            importance scores, 50 and above the further analyses, 90 the list of samples.
        tiles: Numbers on top of the page.
        scalars: Further numbers for the loggers, by stable name.
        gallery: Makes further figures for loggers only, by the whole name that they get there.
        script: JavaScript of the section, run once the page is there; see ``report/page.js``.
    """

    findings: Sequence[Finding] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    title: str = ""
    lead: str = ""
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    html: str = ""
    rank: int = 50
    tiles: Sequence[Tile] = ()
    scalars: Mapping[str, float] = field(default_factory=dict)
    gallery: Callable[[], Mapping[str, go.Figure]] = _no_figures
    script: str = ""

    def __post_init__(self) -> None:
        judged = tuple(f if f.verdict else judge(f, f.controls) for f in self.findings)
        object.__setattr__(self, "findings", judged)
