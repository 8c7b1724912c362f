"""Compares two groups of samples: test, effect size and bootstrap interval.

Groups with fewer than two samples, or without any variance, cannot be tested: the result then has no numbers
(never NaN), and ``why_not`` gives the reason.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from shiftlens.stats.result import Comparison, Values

RESAMPLES = 5000
WELCH_UNPAIRED = "Welch t, one-sided (unpaired, as published)"
"""Name of the unpaired test that the paper applied to paired samples (T2)."""
ROUNDING = 1e-9
"""Relative differences below this count as rounding errors, not as variance."""


def hedges_g(a: Values, b: Values) -> float:
    """Compute Hedges g: the mean difference ``(mean a - mean b) / pooled sd``, corrected for small samples.

    Source: Hedges 1981, with the approximation ``1 - 3 / (4 df - 1)`` of the correction.

    Example:
        >>> round(hedges_g(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0])), 3)
        0.8
    """
    return float(_standardised_difference(a, b))


def pooled_std(a: Values, b: Values) -> float:
    """Compute the pooled standard deviation within two groups (ddof=1 each).

    Example:
        >>> round(pooled_std(np.array([1.0, 3.0]), np.array([5.0, 7.0])) ** 2, 9)
        2.0
    """
    return float(_pooled_std(a, b, -1))


def _pooled_std(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    squares = sum((x.shape[axis] - 1) * x.var(ddof=1, axis=axis) for x in (a, b))
    return np.asarray(np.sqrt(squares / (a.shape[axis] + b.shape[axis] - 2)))


def _standardised_difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
    """Compute Hedges g along an axis, for all resamples of a bootstrap at once; NaN where neither group varies."""
    df, pooled = a.shape[axis] + b.shape[axis] - 2, _pooled_std(a, b, axis)
    size = np.maximum(np.abs(a).max(axis=axis), np.abs(b).max(axis=axis))
    # A resample that repeats one number has a deviation of pure rounding error, which would give a g of 1e16.
    known = pooled > ROUNDING * size
    difference = a.mean(axis=axis) - b.mean(axis=axis)
    g = np.divide(difference, pooled, out=np.full(pooled.shape, np.nan), where=known)
    return np.asarray(g * (1 - 3 / (4 * df - 1)))


def varies(values: Float[np.ndarray, "*rows n"]) -> Bool[np.ndarray, "*rows"]:
    """Tell whether the numbers along the last axis differ by more than rounding; false for fewer than two numbers.

    Example:
        >>> bool(varies(np.array([0.1 + 0.2, 0.3]))), bool(varies(np.array([0.3, 0.4])))
        (False, True)
    """
    if values.shape[-1] < 2:
        return np.zeros(values.shape[:-1], bool)
    return np.asarray(np.ptp(values, axis=-1) > ROUNDING * np.abs(values).max(axis=-1))


def independent(
    a: Values, b: Values, seed: int = 0, resamples: int = RESAMPLES, unit: str = "samples"
) -> Comparison:
    """Test whether the mean of ``a`` is greater than that of ``b``: one-sided Welch t-test (T1 in the paper).

    Args:
        a: [samples] One group.
        b: [samples] The other group.
        seed: Random seed for the bootstrap.
        resamples: Number of bootstrap resamples; 0 for no interval.
        unit: What one number belongs to (plural), for the wording of ``why_not``.

    Returns:
        p, t, Hedges g with its 95 % bootstrap interval, and the p of the Mann-Whitney test as a companion.
    """
    why_not = _untestable(a, b, unit)
    if why_not:
        return Comparison(why_not=why_not)
    p, t = _welch(a, b)
    others = {"Mann-Whitney U, one-sided": float(stats.mannwhitneyu(a, b, alternative="greater").pvalue)}
    ci = _interval((a, b), paired=False, seed=seed, resamples=resamples)
    return Comparison(p, t, hedges_g(a, b), ci, others)


def paired(a: Values, b: Values, seed: int = 0, resamples: int = RESAMPLES) -> Comparison:
    """Test whether ``a`` is greater than ``b`` on the same prompts: one-sided paired t-test (T2).

    Args:
        a: [prompts] Numbers under one condition.
        b: [prompts] Numbers under the other condition, in the same order.
        seed: Random seed for the bootstrap.
        resamples: Number of bootstrap resamples; 0 for no interval.

    Returns:
        p, t, Hedges g of the two conditions with its 95 % bootstrap interval (prompts are resampled), and as
        companions the p of the two-sided test, of the Wilcoxon test, and of the paper's unpaired Welch test.

    Raises:
        ValueError: The lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"paired groups must have one length, got {len(a)} and {len(b)}")
    why_not = _untestable(a, b)
    if not why_not and np.ptp(a - b) <= ROUNDING * max(np.abs(a).max(), np.abs(b).max()):
        why_not = "every pair differs by the same amount"
    if why_not:
        return Comparison(why_not=why_not)
    test = stats.ttest_rel(a, b, alternative="greater")
    others = {
        "paired t, two-sided": float(stats.ttest_rel(a, b).pvalue),
        "Wilcoxon signed rank, one-sided": float(stats.wilcoxon(a, b, alternative="greater").pvalue),
        WELCH_UNPAIRED: _welch(a, b)[0],
    }
    ci = _interval((a, b), paired=True, seed=seed, resamples=resamples)
    return Comparison(float(test.pvalue), float(test.statistic), hedges_g(a, b), ci, others)


def _untestable(a: Values, b: Values, unit: str = "samples") -> str:
    if min(len(a), len(b)) < 2:
        return f"needs at least 2 {unit} in each group, has {len(a)} and {len(b)}"
    if np.isnan(hedges_g(a, b)):
        return "neither group varies"
    return ""


def _welch(a: Values, b: Values) -> tuple[float, float]:
    """Compute one-sided p and t from means and deviations: on raw data, scipy warns about a constant group."""
    moments = [(x.mean(), x.std(ddof=1) if varies(x) else 0.0, len(x)) for x in (a, b)]
    test = stats.ttest_ind_from_stats(*moments[0], *moments[1], equal_var=False, alternative="greater")
    return float(test.pvalue), float(test.statistic)


def _interval(data: tuple[Values, Values], paired: bool, seed: int, resamples: int) -> tuple[float, float] | None:
    """Compute the 95 % percentile bootstrap interval of Hedges g; resamples without variance are left out."""
    if resamples == 0:
        return None
    rng = np.random.default_rng(seed)
    # [resamples, n] indices; pairs are drawn whole.
    indices = [rng.integers(len(x), size=(resamples, len(x))) for x in (data[:1] if paired else data)]
    a, b = (x[index] for x, index in zip(data, indices * 2 if paired else indices, strict=True))
    drawn = _standardised_difference(a, b)
    values = drawn[np.isfinite(drawn)]
    if len(values) < resamples / 2:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
