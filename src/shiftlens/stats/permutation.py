"""Permutation tests over a whole grid: a p-value per setting, and one corrected for having looked at all of them.

Under the null hypothesis of T1 the labels *followed* and *unfollowed* are exchangeable; under that of T2 the sign
of each difference is. One relabelling is applied to all settings together, so that their correlation is kept. The
corrected p-value of a setting is the share of relabellings whose *largest* t over the grid reaches its t
(single-step max-T: Westfall & Young 1993, *Resampling-Based Multiple Testing*). All relabellings are worked
out together: the group sums of every setting under every relabelling are one matrix product.
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
_TIE = 1e-9  # two t-values nearer than this are one: sums may be taken in another order
Matrix = Float[np.ndarray, "_ _"]
TandP = tuple[Matrix, Matrix]


@dataclass(frozen=True)
class MaxT:
    """Permutation tests of one question under several settings.

    Args:
        statistic: [cells] t as observed; 0 where not testable.
        p: [cells] permutation p-value of each setting by itself; 1 where not testable.
        p_corrected: [cells] the same, corrected for all settings (family-wise); 1 where not testable.
        testable: [cells] whether the setting's scores vary; the others take no part.
        selection: share of relabellings under which the smallest t-test p of the grid is below 0.05: how often
            a search for the best setting finds an "effect" where there is none.
        permutations: how many relabellings were drawn.
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
    """Are values higher where the label is true? Welch's t over permuted labels (T1), one-sided.

    Args:
        values: [cells, n] scores, one row per setting.
        labels: [n] the group of each sample.
        strata: [n] labels change places only within one stratum (data sets that were pooled).
        permutations: number of relabellings.
        seed: of the relabellings.

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
    """Are differences above zero? The paired t over flipped signs (T2), one-sided.

    Args:
        differences: [cells, n] tuned minus base, one row per setting.
        permutations: number of sign patterns.
        seed: of the sign patterns.

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
    """Each row less its mean, over its standard deviation; zeros for a constant row."""
    if not values.size:
        return values
    centred = values - values.mean(axis=1, keepdims=True)
    spread = values.std(axis=1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=varies(values)[:, None])


def welch_t(values: Float[np.ndarray, "cells n"], labels: Float[np.ndarray, "perms n"]) -> TandP:
    """Welch's t and its one-sided p of every row of ``values`` under every row of 0/1 ``labels``.

    Args:
        values: [cells, n] standardised scores.
        labels: [perms, n] 1 for the group expected to be higher; at least 2 of each.

    Returns:
        t and p, [cells, perms] each; t is infinite where two groups differ and neither varies.
    """
    n1 = labels[0].sum()
    n0 = labels.shape[1] - n1
    sum1, square1 = values @ labels.T, values**2 @ labels.T
    sum0 = values.sum(axis=1, keepdims=True) - sum1
    square0 = (values**2).sum(axis=1, keepdims=True) - square1
    mean1, mean0 = sum1 / n1, sum0 / n0
    e1 = np.maximum(square1 - n1 * mean1**2, 0) / (n1 - 1) / n1
    e0 = np.maximum(square0 - n0 * mean0**2, 0) / (n0 - 1) / n0
    t = _ratio(mean1 - mean0, np.sqrt(e1 + e0))
    degrees = np.divide(
        (e1 + e0) ** 2, e1**2 / (n1 - 1) + e0**2 / (n0 - 1), out=np.ones_like(t), where=e1 + e0 > _TIE
    )
    return t, special.stdtr(degrees, -t)


def paired_t(values: Float[np.ndarray, "cells n"], signs: Float[np.ndarray, "perms n"]) -> TandP:
    """The paired t and its one-sided p of every row of differences under every row of signs.

    Args:
        values: [cells, n] differences, n at least 2.
        signs: [perms, n] +1 or -1.

    Returns:
        t and p, [cells, perms] each.
    """
    n = values.shape[1]
    mean = values @ signs.T / n
    # The sum of squares is the same whatever the signs.
    variance = np.maximum((values**2).sum(axis=1, keepdims=True) - n * mean**2, 0) / (n - 1)
    t = _ratio(mean, np.sqrt(variance / n))
    return t, special.stdtr(n - 1, -t)


def _ratio(difference: Matrix, error: Matrix) -> Matrix:
    """``difference / error``; without any error, infinite or, if there is no difference either, 0."""
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
    cells = len(values)
    t, p, corrected = np.zeros(cells), np.ones(cells), np.ones(cells)
    if not testable.any():
        return MaxT(t, p, corrected, testable, 0.0, permutations)
    used = values[testable]
    seen = statistic(used, observed)[0]
    alone, largest, found = np.zeros(len(used)), np.zeros(len(used)), 0
    for count in _batches(permutations):
        drawn, drawn_p = statistic(used, draw(count))
        alone += (drawn >= seen - _TIE).sum(axis=1)
        largest += (drawn.max(axis=0) >= seen - _TIE).sum(axis=1)
        found += int((drawn_p.min(axis=0) < ALPHA).sum())
    t[testable] = seen[:, 0]
    # The data as observed is one of the relabellings: no p-value is 0.
    p[testable], corrected[testable] = (1 + alone) / (1 + permutations), (1 + largest) / (1 + permutations)
    return MaxT(t, p, corrected, testable, found / permutations, permutations)


def _batches(permutations: int) -> Iterator[int]:
    for done in range(0, permutations, _BATCH):
        yield min(_BATCH, permutations - done)
