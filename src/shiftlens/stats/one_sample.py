"""Means of numbers that each prompt gives, and whether they differ from zero: prompts are the unit."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

from shiftlens.stats.result import Comparison
from shiftlens.stats.two_groups import RESAMPLES, varies


def mean_of(values: Float[np.ndarray, " prompts"], seed: int = 0, resamples: int = RESAMPLES) -> Comparison:
    """Is the mean different from 0? One-sample t-test, two-sided; of differences, the paired t-test.

    Args:
        values: [prompts] one number of each prompt.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        p, t, the mean as effect with a 95 % percentile bootstrap interval (prompts resampled), and a Wilcoxon p
        beside.

    Example:
        >>> found = mean_of(np.array([0.1, 0.2, 0.3]))
        >>> round(found.effect, 3), found.ci[0] <= 0.2 <= found.ci[1]
        (0.2, True)
    """
    if len(values) < 2:
        return Comparison(why_not=f"needs at least 2 prompts, has {len(values)}")
    if not varies(values):
        return Comparison(why_not="every prompt gives the same number")
    test = stats.ttest_1samp(values, 0.0)
    # The mean of each resample, from how often it has each prompt.
    counts = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), resamples)
    low, high = np.percentile(counts @ values / len(values), [2.5, 97.5])
    others = {"Wilcoxon signed rank, two-sided": float(stats.wilcoxon(values).pvalue)}
    return Comparison(
        float(test.pvalue), float(test.statistic), float(values.mean()), (float(low), float(high)), others
    )
