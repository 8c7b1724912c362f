"""Computes how improbable a list of words is among random lists of the same size from the same vocabulary.

A *feature* is a set of vocabulary words, for instance the words that end in -ing, or that can be verbs. If a list
has k words, c of them in a feature, and the feature holds K of the V vocabulary words, the tail probability
``P(C >= c)`` is hypergeometric. Since many features are tried, the smallest tail probability is not yet a p-value.
It is corrected in two ways: by the number of features (Bonferroni), and by its rank among random lists that are
treated in the same way (min-P, Westfall & Young 1993). Both corrections are valid. The rank is more powerful, but
cannot go below 1 / (lists + 1); so the smaller of the two is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse, stats


@dataclass(frozen=True)
class Features:
    """Named sets of vocabulary words from which the evidence for one linguistic level is computed.

    Args:
        names: [features] name of each set.
        members: [vocabulary, features] sparse 0/1 matrix of membership.
        share: Smallest share of a list that must belong to a feature before the feature can describe the list.
    """

    names: tuple[str, ...]
    members: sparse.csr_array
    share: float

    @classmethod
    def of(cls, sets: Sequence[Sequence[str]], share: float) -> Features:
        """Build features from the feature names of each vocabulary word; features with a single word are left out.

        Args:
            sets: [vocabulary] names of the features that each word has.
            share: Smallest share of a list, as in the class.

        Example:
            >>> Features.of([["-ing"], ["-ing", "un-"], []], 0.25).names
            ('-ing',)
        """
        names, column = np.unique([name for row in sets for name in row], return_inverse=True)
        row = np.repeat(np.arange(len(sets)), [len(of_word) for of_word in sets])
        shape = (len(sets), len(names))
        members = sparse.csr_array((np.ones(len(row), np.int32), (row, column)), shape=shape)
        # Longer names first, since the first of equally improbable features is used: ...ight says more than ...ht.
        kept = sorted(np.flatnonzero(members.sum(0) > 1), key=lambda i: (-len(names[i]), names[i]))
        return cls(tuple(str(names[i]) for i in kept), members[:, kept].tocsr(), share)

    @property
    def sizes(self) -> Int[np.ndarray, " features"]:
        """[features] number of vocabulary words in each feature."""
        return np.asarray(self.members.sum(0)).astype(int)

    def tried(self, k: int) -> int:
        """Return the number of features large enough to describe a list of ``k`` words."""
        return int((self.sizes >= needed(self.share, k)).sum())


def needed(share: float, k: int) -> int:
    """Return the smallest number of words that make up ``share`` of ``k`` words, at least 2.

    Args:
        share: Share of the list, 0..1.
        k: Number of words in the list.

    Example:
        >>> needed(0.25, 30), needed(0.5, 30)
        (8, 15)
    """
    return max(int(np.ceil(share * k - 1e-9)), 2)


def best_feature(
    features: Features, lists: Int[np.ndarray, "lists k"]
) -> tuple[Float[np.ndarray, " lists"], Int[np.ndarray, " lists"]]:
    """Find the feature with the smallest tail probability for each list.

    Args:
        features: Features to try.
        lists: [lists, k] vocabulary indices, without repetition within a list.

    Returns:
        [lists] smallest hypergeometric tail probability, 1 if no feature reaches its share, and [lists] index of
        that feature, -1 if there is none.

    Example:
        >>> f = Features.of([["a"], ["a"], [], [], [], []], 0.5)
        >>> best_feature(f, np.array([[0, 1], [2, 3]]))[0].round(4).tolist()  # 1 of the 15 pairs
        [0.0667, 1.0]
    """
    n, k = lists.shape
    smallest, best = np.ones(n), np.full(n, -1)
    if not features.names:
        return smallest, best
    shape = (n, features.members.shape[0])
    chosen = sparse.csr_array((np.ones(n * k, np.int32), lists.ravel(), np.arange(0, n * k + 1, k)), shape=shape)
    counts = sparse.coo_array(chosen @ features.members)  # [lists, features]
    enough = counts.data >= needed(features.share, k)
    row, column, count = counts.row[enough], counts.col[enough], counts.data[enough]
    if not len(row):
        return smallest, best
    distinct_sizes, size_index = np.unique(features.sizes, return_inverse=True)
    # The tail depends on a feature through its size alone: [distinct sizes, k + 1].
    tail = np.asarray(stats.hypergeom.sf(np.arange(k + 1)[None] - 1, shape[1], distinct_sizes[:, None], k))
    p = tail[size_index[column], count]
    order = np.lexsort((column, p, row))  # the first entry of each row is its smallest p
    rows, first = np.unique(row[order], return_index=True)
    smallest[rows], best[rows] = p[order][first], column[order][first]
    return smallest, best


def rank_p(values: Float[np.ndarray, _], null: Float[np.ndarray, _]) -> Float[np.ndarray, _]:
    """Return the share of null values that are as small as each value; the value itself is counted as one of them.

    Args:
        values: Values to test, where small is extreme.
        null: Values under the null hypothesis.

    Source:
        Phipson & Smyth 2010.

    Example:
        >>> rank_p(np.array([0.0, 0.3]), np.array([0.1, 0.2, 0.5])).tolist()
        [0.25, 0.75]
    """
    return (1 + np.searchsorted(np.sort(null), values, side="right")) / (len(null) + 1)


def corrected(values: Float[np.ndarray, _], null: Float[np.ndarray, _], tried: int) -> Float[np.ndarray, _]:
    """Return the p-values of one level: by rank among random lists, or by Bonferroni where that is smaller.

    Args:
        values: Smallest tail probability of each list.
        null: Smallest tail probability of each random list.
        tried: Number of features of which the smallest tail probability was taken.

    Example:
        >>> corrected(np.array([1e-9]), np.array([0.1, 0.2, 0.5]), 10).tolist()
        [1e-08]
    """
    return np.minimum(rank_p(values, null), np.minimum(values * max(tried, 1), 1.0))
