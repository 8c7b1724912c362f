"""Collects the findings of all jobs of a sweep in one table, with p-values corrected for the number of cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from statsmodels.stats.multitest import multipletests

from shiftlens.results.finding import rejected
from shiftlens.sweep.records import JobRecord, split, swept

SETTINGS = ("saliency.L", "saliency.b", "saliency.p")
_COPIED = (
    "data", "name", "question", "role", "view", "test", "n", "effect", "effect_name", "statistic", "p",
    "p_corrected", "verdict", "note", "why_not", "expected",
)  # fmt: skip
COLUMNS = (
    "job", "base", "tuned", *SETTINGS, *_COPIED, "ci_low", "ci_high", "p_sweep", "correction", "stands",
    "overrides", "folder", "_unit", "_grid",
)  # fmt: skip


def cells_table(sweep: Path, jobs: Sequence[JobRecord]) -> pd.DataFrame:
    """Build the table with one row per finding of each finished job.

    Args:
        sweep: Folder of the sweep.
        jobs: Records of the sweep's jobs.

    Returns:
        ``job, base, tuned``, the settings ``saliency.L, saliency.b, saliency.p``, the finding's fields,
        ``p_sweep`` and ``correction`` (see :func:`corrected`), ``stands`` (whether the null hypothesis is
        rejected with ``p_sweep``), ``overrides, folder``, and a column for each further swept key.
    """
    keys = [key for key in swept([job.overrides for job in jobs]) if key not in COLUMNS]
    rows: list[dict[str, Any]] = []
    for job in jobs:
        if job.status != "done":
            continue
        record = json.loads((sweep / job.folder / "findings.json").read_text(encoding="utf-8"))
        provenance = record["provenance"]
        models = {role: model["name"] for role, model in provenance["models"].items()}
        settings = {f"saliency.{name}": provenance["settings"].get(name) for name in ("L", "b", "p")}
        overrides = dict(map(split, job.overrides))
        unit = " ".join(f"{key}={value}" for key, value in overrides.items() if key not in SETTINGS)
        for finding in record["findings"]:
            low, high = finding["ci"] or (None, None)
            rows.append(
                {
                    "job": job.number,
                    **models,
                    **settings,
                    **{name: finding.get(name) for name in _COPIED},
                    "ci_low": low,
                    "ci_high": high,
                    "overrides": " ".join(job.overrides),
                    "folder": job.folder,
                    "_unit": unit,
                    "_grid": {"L", "b", "p"} <= set(finding.get("corrected_over", ())),
                    **{key: overrides.get(key) for key in keys},
                }
            )
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *keys])
    numbers = ["effect", "ci_low", "ci_high", "statistic", "p", "p_corrected"]
    # Explicit types, because a column that is None in every row would otherwise be stored without a type.
    cells = corrected(frame.astype(dict.fromkeys(numbers, "float64"))).drop(columns=["_unit", "_grid"])
    tests = zip(cells["p_sweep"], cells["effect"], cells["expected"].notna(), strict=True)
    return cells.assign(stands=[rejected(p, effect, one_sided) for p, effect, one_sided in tests])


def corrected(cells: pd.DataFrame) -> pd.DataFrame:
    """Fill ``p_sweep`` and ``correction``: correct p-values for all cells that test the same question.

    Each distinct test of a question (``name``) counts once: a finding that does not depend on L, b and p is the
    same test in all cells. The p-values, as corrected within their run if the run did so, are corrected by Holm's
    method (family-wise). If the runs have corrected over all settings by max-T permutation, cells that differ only
    in L, b and p are accounted for already; then the p-values are multiplied by the number of other choices
    (Bonferroni).

    Args:
        cells: Columns ``name, data, n, effect, p, p_corrected``, ``_unit`` (the job's other settings) and
            ``_grid`` (whether ``p_corrected`` covers all of L, b and p).

    Returns:
        The same rows with both columns; ``p_sweep`` is missing and ``correction`` empty if not testable.

    Example:
        >>> cells = pd.DataFrame({"name": "t", "data": "d", "n": 9, "effect": [0.1, 0.2, 0.2], "_unit": "",
        ...                       "p": [0.03, 0.01, 0.01], "p_corrected": None, "_grid": False})
        >>> corrected(cells)[["p_sweep", "correction"]].values.tolist()
        [[0.03, 'Holm over 2 tests'], [0.02, 'Holm over 2 tests'], [0.02, 'Holm over 2 tests']]
    """
    cells = cells.assign(p_sweep=float("nan"), correction="")
    within = cells["p_corrected"].astype("float64").fillna(cells["p"].astype("float64"))
    for _, family in cells.assign(_p=within)[cells["p"].notna()].groupby("name", sort=False):
        if family["_grid"].all():
            others = family["_unit"].nunique()
            p = (family["_p"] * others).clip(upper=1.0)
            note = "max-T over L, b, p" + (f", Bonferroni over {others} other choices" if others > 1 else "")
        else:
            test = family.groupby(["data", "n", "_p", "effect"], dropna=False).ngroup()
            first = family[~test.duplicated()]
            holm = multipletests(first["_p"], method="holm")[1]
            p = test.map(dict(zip(test[first.index], holm, strict=True)))
            note = f"Holm over {len(first)} test{'s' if len(first) > 1 else ''}"
        cells.loc[family.index, "p_sweep"] = p
        cells.loc[family.index, "correction"] = note
    return cells
