"""Runs permutation tests over a grid of settings: a p-value per setting, and one corrected for the whole grid.

Under the null hypothesis of T1 the labels *followed* and *unfollowed* are exchangeable; under that of T2 the sign
of each difference is. Each relabelling is applied to all settings, which keeps the correlation between settings.
The corrected p-value of a setting is the share of relabellings whose *largest* t over the grid reaches the
setting's t (single-step max-T: Westfall & Young 1993, *Resampling-Based Multiple Testing*). One matrix product
gives the group sums of every setting under every relabelling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import special

from shiftlens.results.finding import ALPHA
from shiftlens.stats.two_groups import varies

PERMUTATIONS = 5000
_BATCH = 1000  # relabellings held in memory at once
_TIE = 1e-9  # t-values closer than this count as equal: the order of a summation may differ
Matrix = Float[np.ndarray, "_ _"]
TandP = tuple[Matrix, Matrix]


@dataclass(frozen=True)
class MaxT:
    """Result of the permutation tests of one question under several settings.

    Args:
        statistic: [cells] Observed t; 0 where not testable.
        p: [cells] Permutation p-value of each setting alone; 1 where not testable.
        p_corrected: [cells] p-value corrected for all settings (family-wise); 1 where not testable.
        testable: [cells] Whether the setting's scores vary; other settings are not counted.
        selection: Share of relabellings under which the smallest t-test p of the grid is below 0.05: how often
            a search for the best setting finds an "effect" where there is none.
        permutations: Number of relabellings drawn.
    """

    statistic: Float[np.ndarray, " cells"]
    p: Float[np.ndarray, " cells"]
    p_corrected: Float[np.ndarray, " cells"]
    testable: Bool[np.ndarray, " cells"]
    selection: float
    permutations: int


def label_test(
    values: Float[np.ndarray, "cells n"],
    labels: Bool[np.ndarray, " n"],
    strata: Shaped[np.ndarray, " n"] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> MaxT:
    """Test whether values are higher where the label is true: Welch's t over permuted labels (T1), one-sided.

    Args:
        values: [cells, n] Scores, one row per setting.
        labels: [n] Group of each sample.
        strata: [n] Stratum of each sample (its data set, if several are pooled); labels are permuted only within
            a stratum.
        permutations: Number of relabellings.
        seed: Random seed for the relabellings.

    Example:
        >>> high = np.arange(12) >= 6
        >>> result = label_test(np.stack([np.arange(12.0), np.ones(12)]), high, permutations=999)
        >>> bool(result.p_corrected[0] < 0.01), result.testable.tolist()
        (True, [True, False])
    """
    rng = np.random.default_rng(seed)
    groups = (
        [np.arange(len(labels))] if strata is None else [np.flatnonzero(strata == s) for s in np.unique(strata)]
    )

    def relabel(count: int) -> Matrix:
        drawn = np.empty((count, len(labels)))
        for members in groups:
            drawn[:, members] = rng.permuted(np.tile(labels[members], (count, 1)), axis=1)
        return drawn

    enough = min(labels.sum(), (~labels).sum()) >= 2
    testable = varies(values) & enough
    return _max_t(standardised(values), testable, labels.astype(float)[None], relabel, welch_t, permutations)


def sign_test(differences: Float[np.ndarray, "cells n"], permutations: int = PERMUTATIONS, seed: int = 0) -> MaxT:
    """Test whether differences are above zero: the paired t over randomly flipped signs (T2), one-sided.

    Args:
        differences: [cells, n] Score of tuned minus score of base, one row per setting.
        permutations: Number of sign patterns.
        seed: Random seed for the sign patterns.

    Example:
        >>> result = sign_test(np.array([[0.9, 1.0, 1.1, 1.2, 0.8, 1.0, 0.7, 1.3]]), permutations=999)
        >>> bool(result.p[0] < 0.02)
        True
    """
    n = differences.shape[1]
    rng = np.random.default_rng(seed)
    testable = varies(differences)
    scale = np.sqrt((differences**2).mean(axis=1, keepdims=True)) if n else np.ones((len(differences), 1))
    values = np.divide(differences, scale, out=np.zeros_like(differences), where=scale > 0)

    def flip(count: int) -> Matrix:
        return rng.choice([-1.0, 1.0], (count, n))

    return _max_t(values, testable, np.ones((1, n)), flip, paired_t, permutations)


def standardised(values: Float[np.ndarray, "cells n"]) -> Float[np.ndarray, "cells n"]:
    """Subtract each row's mean and divide by its standard deviation (ddof=0); a constant row becomes zeros."""
    if not values.size:
        return values
    centred = values - values.mean(axis=1, keepdims=True)
    spread = values.std(axis=1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=varies(values)[:, None])


def welch_t(values: Float[np.ndarray, "cells n"], labels: Float[np.ndarray, "perms n"]) -> TandP:
    """Compute Welch's t and its one-sided p for every row of ``values`` under every row of 0/1 ``labels``.

    Args:
        values: [cells, n] Standardised scores.
        labels: [perms, n] 1 for the group expected to be higher, else 0; at least two samples in each group.

    Returns:
        t and p, each [cells, perms]; t is infinite where the groups differ and neither varies.
    """
    n1 = labels[0].sum()
    n0 = labels.shape[1] - n1
    sum1, square1 = values @ labels.T, values**2 @ labels.T  # [cells, perms]
    sum0 = values.sum(axis=1, keepdims=True) - sum1
    square0 = (values**2).sum(axis=1, keepdims=True) - square1
    mean1, mean0 = sum1 / n1, sum0 / n0
    # Squared standard errors of the two means, [cells, perms].
    e1 = np.maximum(square1 - n1 * mean1**2, 0) / (n1 - 1) / n1
    e0 = np.maximum(square0 - n0 * mean0**2, 0) / (n0 - 1) / n0
    t = _ratio(mean1 - mean0, np.sqrt(e1 + e0))
    degrees = np.divide(
        (e1 + e0) ** 2, e1**2 / (n1 - 1) + e0**2 / (n0 - 1), out=np.ones_like(t), where=e1 + e0 > _TIE
    )
    return t, special.stdtr(degrees, -t)


def paired_t(values: Float[np.ndarray, "cells n"], signs: Float[np.ndarray, "perms n"]) -> TandP:
    """Compute the paired t and its one-sided p for every row of ``values`` under every row of ``signs``.

    Args:
        values: [cells, n] Differences; n is at least 2.
        signs: [perms, n] +1 or -1.

    Returns:
        t and p, each [cells, perms].
    """
    n = values.shape[1]
    mean = values @ signs.T / n  # [cells, perms]
    # The sum of squares does not depend on the signs.
    variance = np.maximum((values**2).sum(axis=1, keepdims=True) - n * mean**2, 0) / (n - 1)
    t = _ratio(mean, np.sqrt(variance / n))
    return t, special.stdtr(n - 1, -t)


def _ratio(difference: Matrix, error: Matrix) -> Matrix:
    """Divide ``difference / error``; where the error is 0, give 0 for no difference and else a signed infinity."""
    exact = np.where(np.abs(difference) > _TIE, np.copysign(np.inf, difference), 0.0)
    return np.divide(difference, error, out=exact, where=error > _TIE)


def _max_t(
    values: Matrix,
    testable: Bool[np.ndarray, " _"],
    observed: Matrix,
    draw: Callable[[int], Matrix],
    statistic: Callable[[Matrix, Matrix], TandP],
    permutations: int,
) -> MaxT:
    """Count how often drawn relabellings reach the observed t, per setting and for the largest t of the grid.

    Args:
        values: [cells, n] Standardised scores or differences.
        testable: [cells] Settings to test.
        observed: [1, n] Labels or signs as observed.
        draw: Number of relabellings -> [perms, n] labels or signs.
        statistic: :func:`welch_t` or :func:`paired_t`.
        permutations: Number of relabellings.
    """
    cells = len(values)
    t, p, corrected = np.zeros(cells), np.ones(cells), np.ones(cells)
    if not testable.any():
        return MaxT(t, p, corrected, testable, 0.0, permutations)
    used = values[testable]
    t_observed = statistic(used, observed)[0]  # [tested, 1]
    # Numbers of relabellings that reach a setting's t with its own t, and with the largest t of the grid.
    reached_alone, reached_by_largest, n_selected = np.zeros(len(used)), np.zeros(len(used)), 0
    for count in _batches(permutations):
        t_drawn, p_drawn = statistic(used, draw(count))  # [tested, count]
        reached_alone += (t_drawn >= t_observed - _TIE).sum(axis=1)
        reached_by_largest += (t_drawn.max(axis=0) >= t_observed - _TIE).sum(axis=1)
        n_selected += int((p_drawn.min(axis=0) < ALPHA).sum())
    t[testable] = t_observed[:, 0]
    # The observed labelling counts as one of the relabellings, so that no p-value is 0.
    p[testable] = (1 + reached_alone) / (1 + permutations)
    corrected[testable] = (1 + reached_by_largest) / (1 + permutations)
    return MaxT(t, p, corrected, testable, n_selected / permutations, permutations)


def _batches(permutations: int) -> Iterator[int]:
    for done in range(0, permutations, _BATCH):
        yield min(_BATCH, permutations - done)
