"""The page of a sweep: what each question's answer becomes over all settings, and which jobs failed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from shiftlens.results.sentence import p_value
from shiftlens.support.whole_files import write_text

ALPHA = 0.05
MAX_ROWS = 1000
"""Cells listed; the page says so when there are more."""


@dataclass(frozen=True)
class SweepHead:
    """What the page says of the sweep as a whole.

    Args:
        keys: the swept keys.
        same: overrides that all jobs share.
        labels: number of a job -> what sets it apart.
        launcher: where the jobs ran.
    """

    keys: Sequence[str]
    same: Sequence[str]
    labels: Mapping[int, str]
    launcher: str


def write_sweep_report(path: Path, jobs: pd.DataFrame, cells: pd.DataFrame, head: SweepHead) -> Path:
    """Write the page of a sweep, whole or not at all; it needs no script and no network.

    Args:
        path: the HTML file.
        jobs: ``number, overrides, status, folder, seconds, error``, one row per job.
        cells: one row per finding and job, with ``p_sweep``.
        head: of the sweep as a whole.

    Returns:
        The file written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("sweep.html.j2").render(
        jobs=_records(jobs),
        head=head,
        questions=list(questions(cells)),
        cells=_records(_by_question(cells).head(MAX_ROWS)),
        left_out=max(0, len(cells) - MAX_ROWS),
        number=_number,
        p_text=_p_text,
        alpha=ALPHA,
        style=Markup(Path(__file__).with_name("report.css").read_text(encoding="utf-8")),
    )
    return write_text(path, page)


def questions(cells: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Each question asked: in how many cells its answer stands, and its heat maps.

    Args:
        cells: see :func:`write_sweep_report`.

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
            "maps": list(_maps(family)),
        }


def _sentence(family: pd.DataFrame, tested: pd.DataFrame) -> str:
    if tested.empty:
        notes = family["note"].fillna("").unique()
        why = f": {notes[0].removeprefix('not testable: ')}" if len(notes) == 1 and notes[0] else ""
        return f"Not testable in any of {len(family)} cells{why}."
    stands = int((tested["p_sweep"] < ALPHA).sum())
    text = f"p < {ALPHA} after correction in {stands} of {len(tested)} cells"
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


def _maps(family: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Heat maps b x p, one per L, for each pair, data set and further choice; none where all would be equal."""
    largest = family["effect"].abs().max()
    grid = ["saliency.L", "saliency.b", "saliency.p"]
    further = ["base", "tuned", "data", *_further(family)]
    for choice, group in family.groupby(further, sort=False, dropna=False):
        if len(group.drop_duplicates(grid)) < 2 or group["effect"].nunique(dropna=False) < 2:
            continue
        found = {tuple(row[key] for key in grid): row for row in _records(group)}
        # Every level has the same rows, so that levels can be compared across; what has no result stays empty.
        bs, ps = (sorted(group[f"saliency.{name}"].unique()) for name in ("b", "p"))
        base, tuned, *others = map(str, choice)
        yield {
            "title": f"{base} → {tuned}, " + ", ".join(other for other in others if other != "nan"),
            "ps": ps,
            "levels": [
                {
                    "L": L,
                    "rows": [{"b": b, "cells": [_cell(found.get((L, b, p)), largest) for p in ps]} for b in bs],
                }
                for L in sorted(group["saliency.L"].unique())
            ],
        }


def _further(family: pd.DataFrame) -> list[str]:
    """Swept keys besides the settings: the columns that follow the known ones."""
    names = [str(name) for name in family.columns]
    return names[names.index("folder") + 1 :]


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
        "stands": bool(p < ALPHA),
        "href": f"{row['folder']}/report.html",
    }


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:z.2f}".replace("-", "−")  # z: no minus before a zero


def _p_text(p: float | None) -> str:
    return "–" if p is None or math.isnan(p) else p_value(p).removeprefix("= ")


def _by_question(cells: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order in which questions are told."""
    return cells.sort_values("name", key=lambda names: pd.Series(pd.factorize(names)[0]), kind="stable")
