"""Reads the paper's published scores of LLaMA-7B and Vicuna-7B, and writes the table of tests in the README."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from shiftlens.analyses.density.t1_t2 import T1, T1_IN_BASE, T2
from shiftlens.errors import SourceError
from shiftlens.results.finding import Control, Finding
from shiftlens.scores.following import followed_or_rated
from shiftlens.scores.scored import Scored
from shiftlens.stats.two_groups import WELCH_UNPAIRED

FILES = {"base": "llama_7b.parquet", "tuned": "vicuna_7b.parquet"}
LEVELS = 10
"""L of the published scores."""
_LEGEND = (
    "T1: followed against unfollowed responses of the tuned model. T2: tuned against base on the same prompts. "
    "*lower*, *higher*: mean ± std of the group expected so. *as published*: Welch's t, one-sided. *paired*: "
    "the paired t. *corrected*: max-T permutation over the grid, then Holm over data sets. In the second "
    "table, *yes*: the finding stands against the control; t and g are the control's own (of random masks, the "
    "median of the draws)."
)


def read_published(folder: Path | str) -> list[Scored]:
    """Read the published records of both models.

    Args:
        folder: Folder with ``llama_7b.parquet`` and ``vicuna_7b.parquet``. Each has one row per prompt with ``id,
            dataset, rating, prompt_tokens, response_tokens, instruction_mask, context_mask`` and ``score``, the
            sparse score S (L = 10, b = 0) flattened row by row.

    Raises:
        SourceError: A file is missing.
    """
    missing = [name for name in FILES.values() if not (Path(folder) / name).is_file()]
    if missing:
        raise SourceError(f"{folder} has no {' and no '.join(missing)}. Give the folder of the published scores.")
    return [
        record for role, name in FILES.items() for record in _records(pd.read_parquet(Path(folder) / name), role)
    ]


def _records(rows: pd.DataFrame, role: str) -> list[Scored]:
    unknown = pd.Series(pd.NA, index=rows.index, dtype="boolean")
    followed = followed_or_rated(unknown, rows["rating"])
    return [
        Scored(
            dataset=row["dataset"],
            id=row["id"],
            role=role,
            instruction=np.asarray(row["instruction_mask"], bool),
            context=np.asarray(row["context_mask"], bool),
            followed=None if pd.isna(verdict) else bool(verdict),
            S=np.asarray(row["score"], np.uint8).reshape(len(row["prompt_tokens"]), len(row["response_tokens"])),
            L=LEVELS,
        )
        for row, verdict in zip(rows.to_dict("records"), followed, strict=True)
    ]


def published_table(findings: Sequence[Finding]) -> str:
    """Write two Markdown tables: the tests as published and corrected, and the controls.

    Args:
        findings: Findings of :func:`shiftlens.analyses.density.compute.examine`; those that are not testable are
            left out.

    Example:
        >>> print(published_table([]))
        Nothing could be tested.
    """
    shown = sorted((finding for finding in findings if finding.testable), key=_short)
    if not shown:
        return "Nothing could be tested."
    head = [
        "",
        "data",
        "n",
        "lower",
        "higher",
        "Hedges g [95 %]",
        "as published",
        "paired",
        "corrected",
        "verdict",
    ]
    tests = _table(head, [_test_row(finding) for finding in shown])
    names = [control.name for control in shown[0].controls]
    marks = _table(
        ["control", *(f"{_short(f)} {f.data}" for f in shown)],
        [[name, *(_mark(next(c for c in f.controls if c.name == name)) for f in shown)] for name in names],
    )
    return f"{tests}\n\n{marks}\n\n{_LEGEND}"


def _test_row(finding: Finding) -> list[str]:
    assert finding.effect is not None and finding.p is not None and finding.expected is not None
    high = finding.groups[finding.expected]
    (low,) = (group for name, group in finding.groups.items() if name != finding.expected)
    interval = f" [{finding.ci[0]:.2f}, {finding.ci[1]:.2f}]" if finding.ci else ""
    paired = WELCH_UNPAIRED in finding.p_others
    return [
        _short(finding), finding.data, str(finding.n) if paired else f"{high.n} / {low.n}",
        f"{low.mean:.4f} ± {low.std:.4f}", f"{high.mean:.4f} ± {high.std:.4f}", f"{finding.effect:.2f}{interval}",
        f"{finding.p_others[WELCH_UNPAIRED] if paired else finding.p:.2e}", f"{finding.p:.1e}" if paired else "–",
        "–" if finding.p_corrected is None else f"{finding.p_corrected:.4f}", finding.verdict,
    ]  # fmt: skip


def _short(finding: Finding) -> str:
    return {T1: "T1", T1_IN_BASE: "T1 (base)", T2: "T2"}[finding.name]


def _mark(control: Control) -> str:
    if control.statistic is None or control.effect is None:
        return "not testable"
    return f"{'yes' if control.survives else '**no**'} (t {control.statistic:.1f}, g {control.effect:.2f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
