"""Comparisons of two groups of samples: test, effect size and interval in one place.

A group with fewer than two samples, or groups without any variance, cannot be tested: the
comparison then has no numbers and says why, never NaN.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from shiftlens.stats.result import Comparison, Values

RESAMPLES = 5000
WELCH_UNPAIRED = "Welch t, one-sided (unpaired, as published)"
"""Name of the test that the paper applied to paired samples."""
ROUNDING = 1e-9
"""Relative differences below this are rounding, not variance."""


def hedges_g(a: Values, b: Values) -> float:
    """Standardised mean difference ``(mean a - mean b) / pooled sd``, corrected for small samples.

    Source: Hedges 1981, with the approximation ``1 - 3 / (4 df - 1)`` of the correction.

    Example:
        >>> round(hedges_g(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0])), 3)
        0.8
    """
    return float(_standardised_difference(a, b))


def pooled_std(a: Values, b: Values) -> float:
    """Standard deviation within two groups taken together (ddof=1 each).

    Example:
        >>> round(pooled_std(np.array([1.0, 3.0]), np.array([5.0, 7.0])) ** 2, 9)
        2.0
    """
    return float(_pooled_std(a, b, -1))


def _pooled_std(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    squares = sum((x.shape[axis] - 1) * x.var(ddof=1, axis=axis) for x in (a, b))
    return np.asarray(np.sqrt(squares / (a.shape[axis] + b.shape[axis] - 2)))


def _standardised_difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
    """Hedges g along an axis, for all resamples of a bootstrap at once; NaN where neither group varies."""
    df, pooled = a.shape[axis] + b.shape[axis] - 2, _pooled_std(a, b, axis)
    size = np.maximum(np.abs(a).max(axis=axis), np.abs(b).max(axis=axis))
    # A resample of one number many times over has a deviation of rounding, and would have a g of 1e16.
    known = pooled > ROUNDING * size
    difference = a.mean(axis=axis) - b.mean(axis=axis)
    g = np.divide(difference, pooled, out=np.full(pooled.shape, np.nan), where=known)
    return np.asarray(g * (1 - 3 / (4 * df - 1)))


def varies(values: Float[np.ndarray, "*rows n"]) -> Bool[np.ndarray, "*rows"]:
    """Whether the numbers along the last axis differ by more than rounding; not if there are fewer than two.

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
    """Is the mean of ``a`` greater than that of ``b``? Welch's t-test, one-sided (paper, T1).

    Args:
        a: [samples] One group.
        b: [samples] The other group.
        seed: Random seed for the bootstrap.
        resamples: Number of bootstrap resamples; 0 for no interval.
        unit: What the numbers are of, for the reason why they cannot be tested.

    Returns:
        p, t, Hedges g with a 95 % bootstrap interval, and a Mann-Whitney p beside.
    """
    why_not = _untestable(a, b, unit)
    if why_not:
        return Comparison(why_not=why_not)
    p, t = _welch(a, b)
    others = {"Mann-Whitney U, one-sided": float(stats.mannwhitneyu(a, b, alternative="greater").pvalue)}
    ci = _interval((a, b), paired=False, seed=seed, resamples=resamples)
    return Comparison(p, t, hedges_g(a, b), ci, others)


def paired(a: Values, b: Values, seed: int = 0, resamples: int = RESAMPLES) -> Comparison:
    """Is ``a`` greater than ``b`` on the same prompts? Paired t-test, one-sided (paper's T2, paired).

    Args:
        a: [samples] One condition.
        b: [samples] The other condition, same order.
        seed: Random seed for the bootstrap.
        resamples: Number of bootstrap resamples; 0 for no interval.

    Returns:
        p, t, Hedges g of the two conditions with a 95 % interval (prompts resampled), and beside it the
        two-sided p, the Wilcoxon test, and the unpaired Welch test that the paper used.

    Raises:
        ValueError: the lengths differ.
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
    """One-sided p and t, from means and deviations: scipy warns of a constant group, whose deviation is 0 here."""
    ours = [(x.mean(), x.std(ddof=1) if varies(x) else 0.0, len(x)) for x in (a, b)]
    test = stats.ttest_ind_from_stats(*ours[0], *ours[1], equal_var=False, alternative="greater")
    return float(test.pvalue), float(test.statistic)


def _interval(data: tuple[Values, Values], paired: bool, seed: int, resamples: int) -> tuple[float, float] | None:
    """Of Hedges g: 95 % percentile bootstrap; resamples without variance are left out of the percentiles."""
    if resamples == 0:
        return None
    rng = np.random.default_rng(seed)
    places = [rng.integers(len(x), size=(resamples, len(x))) for x in (data[:1] if paired else data)]
    a, b = (x[place] for x, place in zip(data, places * 2 if paired else places, strict=True))
    drawn = _standardised_difference(a, b)
    values = drawn[np.isfinite(drawn)]
    if len(values) < resamples / 2:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
