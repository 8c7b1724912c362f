"""Tests whether a mean over prompts differs from zero; also serves as the paired test, given differences."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from shiftlens.stats.result import Comparison
from shiftlens.stats.two_groups import RESAMPLES, varies


def mean_of(values: Float[np.ndarray, " prompts"], seed: int = 0, resamples: int = RESAMPLES) -> Comparison:
    """Test whether the mean differs from 0: two-sided one-sample t-test (on differences, the paired t-test).

    Args:
        values: [prompts] One number per prompt.
        seed: Random seed for the bootstrap interval.
        resamples: Number of bootstrap resamples.

    Returns:
        p, t, the mean as the effect with its 95 % percentile bootstrap interval (prompts are resampled), and the p
        of the Wilcoxon signed-rank test as a companion.

    Example:
        >>> result = mean_of(np.array([0.1, 0.2, 0.3]))
        >>> round(result.effect, 3), result.ci[0] <= 0.2 <= result.ci[1]
        (0.2, True)
    """
    if len(values) < 2:
        return Comparison(why_not=f"needs at least 2 prompts, has {len(values)}")
    if not varies(values):
        return Comparison(why_not="every prompt gives the same number")
    test = stats.ttest_1samp(values, 0.0)
    low, high = np.percentile(_counts(len(values), resamples, seed) @ values / len(values), [2.5, 97.5])
    others = {"Wilcoxon signed rank, two-sided": float(stats.wilcoxon(values).pvalue)}
    return Comparison(
        float(test.pvalue), float(test.statistic), float(values.mean()), (float(low), float(high)), others
    )


@lru_cache(maxsize=4)
def _counts(prompts: int, resamples: int, seed: int) -> Int[np.ndarray, "resamples prompts"]:
    """Draw how often each resample contains each prompt; times values, that is the resamples' sums."""
    return np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), resamples)
