"""Writes the HTML page of a sweep: the result of each question in every cell, and the failed jobs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from shiftlens.report.page import style
from shiftlens.results.finding import ALPHA
from shiftlens.results.render import render
from shiftlens.results.sentence import p_value
from shiftlens.support.whole_files import write_text
from shiftlens.sweep.cells import SETTINGS

MAX_ROWS = 1000
"""Largest number of cells listed on the page; the page says how many are left out."""


@dataclass(frozen=True)
class SweepHead:
    """Facts about the sweep as a whole, for the head of the page.

    Args:
        keys: Swept keys.
        same: Overrides that all jobs share.
        labels: Number of a job -> label made of its swept overrides.
        launcher: Name of the launcher.
    """

    keys: Sequence[str]
    same: Sequence[str]
    labels: Mapping[int, str]
    launcher: str


def write_sweep_report(path: Path, jobs: pd.DataFrame, cells: pd.DataFrame, head: SweepHead) -> Path:
    """Write the page of a sweep atomically; the page needs no script and no network.

    Args:
        path: HTML file to write.
        jobs: Columns ``number, overrides, status, folder, seconds, error``, one row per job.
        cells: Table from :func:`shiftlens.sweep.cells.cells_table`.
        head: Facts about the sweep as a whole.

    Returns:
        The file written.
    """
    page = render(
        Path(__file__).with_name("sweep_page.html.j2"),
        jobs=_records(jobs),
        head=head,
        questions=list(questions(cells, head.keys)),
        cells=_records(_by_question(cells).head(MAX_ROWS)),
        left_out=max(0, len(cells) - MAX_ROWS),
        number=_number,
        p_text=_p_text,
        alpha=ALPHA,
        style=style(),
        policy="",
    )
    return write_text(path, page)


def questions(cells: pd.DataFrame, keys: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Summarise each question: in how many cells its null hypothesis is rejected, and its heat maps.

    Args:
        cells: Table from :func:`shiftlens.sweep.cells.cells_table`.
        keys: Swept keys; each combination of values of the keys other than L, b and p has its own map.

    Yields:
        ``name, question, correction, sentence, maps``.
    """
    for name, family in cells.groupby("name", sort=False):
        tested = family[family["p_sweep"].notna()]
        yield {
            "name": str(name),
            "question": family["question"].iloc[0],
            "correction": tested["correction"].iloc[0] if len(tested) else "",
            "sentence": _sentence(family, tested),
            "maps": list(_maps(family, [key for key in keys if key not in SETTINGS and key in family])),
        }


def _sentence(family: pd.DataFrame, tested: pd.DataFrame) -> str:
    if tested.empty:
        reasons = family["why_not"].fillna("").unique()
        why = f": {reasons[0]}" if len(reasons) == 1 and reasons[0] else ""
        return f"Not testable in any of {len(family)} cells{why}."
    text = f"p ≤ {ALPHA} after correction in {int(tested['stands'].sum())} of {len(tested)} cells"
    effects = tested["effect"].dropna()
    if len(effects):
        kinds = " or ".join(tested["effect_name"].dropna().unique())
        text += (
            f"; {kinds} from {_number(effects.min())} to {_number(effects.max())}, "
            f"median {_number(effects.median())}, "
            f"above 0 in {int((effects > 0).sum())}"
        )
    untested = len(family) - len(tested)
    return text + (f"; not testable in {untested} more." if untested else ".")


def _maps(family: pd.DataFrame, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Build b x p heat maps, one per L, for each pair, data set and further choice; none if effects are equal."""
    largest = family["effect"].abs().max()
    grid = list(SETTINGS)
    further = ["base", "tuned", "data", *keys]
    for choice, group in family.groupby(further, sort=False, dropna=False):
        if len(group.drop_duplicates(grid)) < 2 or group["effect"].nunique(dropna=False) < 2:
            continue
        rows_by_setting = {tuple(row[key] for key in grid): row for row in _records(group)}
        # All maps have the same rows, so that they can be compared across L; cells without a result stay empty.
        bs, ps = (sorted(group[f"saliency.{name}"].unique()) for name in ("b", "p"))
        base, tuned, *others = map(str, choice)
        yield {
            "title": f"{base} → {tuned}, " + ", ".join(other for other in others if other != "nan"),
            "ps": ps,
            "levels": [
                {
                    "L": L,
                    "rows": [
                        {"b": b, "cells": [_cell(rows_by_setting.get((L, b, p)), largest) for p in ps]} for b in bs
                    ],
                }
                for L in sorted(group["saliency.L"].unique())
            ],
        }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _cell(row: dict[str, Any] | None, largest: float) -> dict[str, Any]:
    if row is None:
        title = "no result: not in this sweep, or its job is not done"
        return {"text": "", "p": "", "title": title, "color": "", "share": 0, "stands": False, "href": ""}
    effect, p = row["effect"], row["p_sweep"]
    known = not pd.isna(effect)
    return {
        "text": _number(effect) if known else "n/t",
        "p": "" if pd.isna(p) else f"p {_p_text(p)}",
        "title": f"{row['effect_name']} {_number(effect)} [{_number(row['ci_low'])}, {_number(row['ci_high'])}], "
        f"n = {row['n']}, p {p_value(None if pd.isna(row['p']) else row['p'])}, "
        f"corrected {p_value(None if pd.isna(p) else p)}",
        "color": "tuned" if known and effect > 0 else "base",
        "share": round(70 * abs(effect) / largest) if known and largest > 0 else 0,
        "stands": bool(row["stands"]),
        "href": f"{row['folder']}/report.html",
    }


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:z.2f}".replace("-", "−")  # z: no minus before a zero


def _p_text(p: float | None) -> str:
    return "–" if p is None or math.isnan(p) else p_value(p).removeprefix("= ")


def _by_question(cells: pd.DataFrame) -> pd.DataFrame:
    """Sort the rows by question, in the order of the questions on the page."""
    return cells.sort_values("name", key=lambda names: pd.Series(pd.factorize(names)[0]), kind="stable")
