"""Comparisons of two groups of samples: test, effect size and interval in one place.

A group with fewer than two samples, or groups without any variance, cannot be tested: the
comparison then has no numbers and says why, never NaN.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from shiftlens.evidence.finding import Group

RESAMPLES = 5000
Values = Float[np.ndarray, "_"]  # groups may differ in size


@dataclass(frozen=True)
class Comparison:
    """Numbers of a :class:`~shiftlens.evidence.finding.Finding`; all ``None`` where not testable."""

    p: float | None = None
    statistic: float | None = None
    effect: float | None = None
    ci: tuple[float, float] | None = None
    p_others: dict[str, float] = field(default_factory=dict)
    why_not: str = ""


def group(values: Values) -> Group:
    """Mean, standard deviation (ddof=0) and size of a group; zeros for an empty one."""
    if len(values) == 0:
        return Group(0.0, 0.0, 0)
    return Group(float(np.mean(values)), float(np.std(values)), len(values))


def hedges_g(a: Values, b: Values) -> float:
    """Standardised mean difference ``(mean a - mean b) / pooled sd``, corrected for small samples.

    Source: Hedges 1981, with the approximation ``1 - 3 / (4 df - 1)`` of the correction.

    Example:
        >>> round(hedges_g(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0])), 3)
        0.8
    """
    df = len(a) + len(b) - 2
    pooled = np.sqrt(((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / df)
    return float((a.mean() - b.mean()) / pooled * (1 - 3 / (4 * df - 1))) if pooled > 0 else float("nan")


def independent(a: Values, b: Values, seed: int = 0) -> Comparison:
    """Is the mean of ``a`` greater than that of ``b``? Welch's t-test, one-sided (paper, T1).

    Args:
        a: [samples] one group.
        b: [samples] the other group.
        seed: of the bootstrap.

    Returns:
        p, t, Hedges g with a 95 % bootstrap interval, and a Mann-Whitney p beside.
    """
    why_not = _untestable(a, b)
    if why_not:
        return Comparison(why_not=why_not)
    welch = stats.ttest_ind(a, b, equal_var=False, alternative="greater")
    others = {"Mann-Whitney U, one-sided": float(stats.mannwhitneyu(a, b, alternative="greater").pvalue)}
    ci = _interval((a, b), hedges_g, paired=False, seed=seed)
    return Comparison(float(welch.pvalue), float(welch.statistic), hedges_g(a, b), ci, others)


def paired(a: Values, b: Values, seed: int = 0) -> Comparison:
    """Is ``a`` greater than ``b`` on the same prompts? Paired t-test, one-sided (paper's T2, paired).

    Args:
        a: [samples] one condition.
        b: [samples] the other condition, same order.
        seed: of the bootstrap.

    Returns:
        p, t, Hedges g of the two conditions with a 95 % interval (prompts resampled), and beside it the
        two-sided p, the Wilcoxon test, and the unpaired Welch test that the paper used.

    Raises:
        ValueError: the lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"paired groups must have one length, got {len(a)} and {len(b)}")
    why_not = _untestable(a, b)
    if not why_not and np.ptp(a - b) == 0:
        why_not = "every pair differs by the same amount"
    if why_not:
        return Comparison(why_not=why_not)
    test = stats.ttest_rel(a, b, alternative="greater")
    others = {
        "paired t, two-sided": float(stats.ttest_rel(a, b).pvalue),
        "Wilcoxon signed rank, one-sided": float(stats.wilcoxon(a, b, alternative="greater").pvalue),
        "Welch t, one-sided (unpaired, as published)": float(
            stats.ttest_ind(a, b, equal_var=False, alternative="greater").pvalue
        ),
    }
    ci = _interval((a, b), hedges_g, paired=True, seed=seed)
    return Comparison(float(test.pvalue), float(test.statistic), hedges_g(a, b), ci, others)


def _untestable(a: Values, b: Values) -> str:
    if min(len(a), len(b)) < 2:
        return f"needs at least 2 samples in each group, has {len(a)} and {len(b)}"
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return "neither group varies"
    return ""


def _interval(data: tuple[Values, Values], statistic: Any, paired: bool, seed: int) -> tuple[float, float] | None:
    """95 % percentile bootstrap; resamples without variance are left out of the percentiles."""
    generator = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = stats.bootstrap(
            data,
            statistic,
            paired=paired,
            vectorized=False,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=generator,
        )
    values = result.bootstrap_distribution[np.isfinite(result.bootstrap_distribution)]
    if len(values) < RESAMPLES / 2:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
