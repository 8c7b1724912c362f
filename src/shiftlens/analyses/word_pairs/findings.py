"""Tests whether attention heads gained pairs with instruction verbs more often than pairs with general verbs.

As in the paper, the unit is the verb; its value is the share of heads where tuning raised the number of pairs with
the verb, of all heads where that number changed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from shiftlens.analyses.word_pairs.compute import KINDS
from shiftlens.results.finding import Finding
from shiftlens.stats.multiple_testing import holm
from shiftlens.stats.two_groups import independent

PERMUTATIONS = 9999


def verb_findings(shares: pd.DataFrame, seed: int = 0) -> list[Finding]:
    """Test whether tuning raised pairs with instruction verbs in more heads than pairs with general verbs.

    Runs Welch's t-test over verbs, as in the paper, and a permutation test that assumes no distribution, for all
    layers and for each quarter of the depth. The p-values of the quarters are corrected by Holm's method.

    Args:
        shares: Table from :func:`~shiftlens.analyses.word_pairs.compute.verb_shares`.
        seed: Random seed for the bootstrap and the permutations.

    Returns:
        Finding of all layers, then one of each quarter of the depth; empty for an empty table.
    """
    by_part = {}
    for name, rows in shares.groupby("layers", sort=False):
        known = rows[rows["n"] > 0]
        instruction, general = (known.loc[known["kind"] == kind, "share"].to_numpy(float) for kind in KINDS)
        by_part[str(name)] = pairs_finding(str(name), instruction, general, len(rows) - len(known), seed)
    return [by_part.pop("all"), *holm(list(by_part.values()), "quarters of the depth")] if by_part else []


def pairs_finding(
    part: str,
    instruction: Float[np.ndarray, " _"],
    general: Float[np.ndarray, " _"],
    unchanged: int,
    seed: int,
    why_not: str = "",
) -> Finding:
    """Test one part of the depth, and return the finding.

    Args:
        part: ``all``, or the number of a quarter.
        instruction: [verbs] share of changed heads that gained pairs, for each instruction verb.
        general: [verbs] share of changed heads that gained pairs, for each general verb.
        unchanged: Number of verbs whose pairs changed in no head.
        seed: Random seed for the bootstrap and the permutations.
        why_not: Reason why there is nothing to test, if that is known.
    """
    result = independent(instruction, general, seed, unit="verbs whose pairs changed")
    others = dict(result.p_others)
    if result.p is not None:
        permuted = stats.permutation_test(
            (instruction, general), lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
            vectorized=True, alternative="greater", n_resamples=PERMUTATIONS, rng=np.random.default_rng(seed),
        )  # fmt: skip
        others["permutation of verbs, one-sided"] = float(permuted.pvalue)
    where = "all layers" if part == "all" else f"quarter {part} of the depth"
    return replace(result, p_others=others, why_not=why_not or result.why_not).finding(
        name=f"pairs/instruction_vs_general/{part}",
        view="pairs",
        measure=f"share of changed heads that gained pairs with a verb ({where})",
        unit="%",
        expected="instruction",
        headline=part == "all",
        data="attention heads",
        role="both",
        question=f"Did tuning raise pairs with instruction verbs in more heads than pairs with others? ({where})",
        null="mean share of heads with more pairs after tuning, of the heads that changed: instruction verbs <= "
        "general verbs",
        test="Welch t over verbs, one-sided",
        n=len(instruction) + len(general),
        groups={"instruction": instruction, "general": general},
        notes=[f"left out: {unchanged} verbs whose pairs changed in no head" if unchanged else ""],
    )
