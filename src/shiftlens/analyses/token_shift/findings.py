"""Tests where in the response shifted tokens occur, and whether the instruction drives shifted tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from shiftlens.analyses.token_shift.compute import KINDS
from shiftlens.results.finding import Finding
from shiftlens.stats.one_sample import mean_of
from shiftlens.stats.two_groups import paired


def shift_findings(table: pd.DataFrame, left_out: Mapping[str, Sequence[str]], seed: int = 0) -> list[Finding]:
    """Test per data set, over prompts, where shifted tokens occur and whether the instruction drives them.

    Args:
        table: Rows from :func:`~shiftlens.analyses.token_shift.compute.shift_rows`.
        left_out: Data set -> what was left out and why; has a key for every data set.
        seed: Random seed for the bootstrap intervals.

    Returns:
        Findings named ``tokens/first_vs_second_half`` and ``tokens/shifted_vs_unshifted``.
    """
    findings = []
    for dataset, notes in left_out.items():
        rows = table[table["dataset"] == dataset]
        findings += [_halves(rows, dataset, notes, seed), _drive(rows, dataset, notes, seed)]
    return findings


def _halves(rows: pd.DataFrame, dataset: str, notes: Sequence[str], seed: int) -> Finding:
    """Test whether the share of shifted tokens differs between the halves of a response."""
    half = np.where(rows["relative"] < 0.5, "first half", "second half")
    wide = rows["kind"].eq("shifted").groupby([rows["id"], half], sort=False).mean().unstack()
    both = wide.reindex(columns=["first half", "second half"]).dropna()
    first, second = both["first half"].to_numpy(float), both["second half"].to_numpy(float)
    shares = ", ".join(f"{kind} {rows['kind'].eq(kind).mean():.1%}" for kind in KINDS) if len(rows) else "none"
    return mean_of(first - second, seed).finding(
        name="tokens/first_vs_second_half",
        view="tokens",
        measure="share of shifted tokens",
        unit="%",
        data=dataset,
        role="both",
        question="Does the base model differ from the tuned one's response mostly at its start?",
        null="share of shifted tokens is the same in both halves of a response",
        test="paired t, two-sided",
        n=len(both),
        groups={"first half": first, "second half": second},
        effect_name="difference of shares",
        notes=[f"of all tokens: {shares}", *notes],
    )


def _drive(rows: pd.DataFrame, dataset: str, notes: Sequence[str], seed: int) -> Finding:
    """Test whether the instruction's share of the importance is larger for shifted than for unshifted tokens."""
    wide = rows.dropna(subset="instruction_share").groupby(["id", "kind"], sort=False)["instruction_share"].mean()
    both = wide.unstack().reindex(columns=list(KINDS))[["shifted", "unshifted"]].dropna()
    shifted, unshifted = both["shifted"].to_numpy(float), both["unshifted"].to_numpy(float)
    without = rows["id"].nunique() - len(both)
    return paired(shifted, unshifted, seed).finding(
        name="tokens/shifted_vs_unshifted",
        view="tokens",
        measure="instruction's share of the importance",
        unit="%",
        expected="shifted",
        data=dataset,
        role="tuned",
        question="Are the tokens that tuning shifted those that the instruction drives?",
        null="mean difference of the instruction's share of importance, shifted minus unshifted tokens, is <= 0",
        test="paired t, one-sided",
        n=len(both),
        groups={"shifted": shifted, "unshifted": unshifted},
        notes=[f"left out: {without} without tokens of both kinds" if without else "", *notes],
    )
