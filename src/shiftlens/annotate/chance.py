"""How surprising a list of words is against random lists of the same size from the same vocabulary.

A *feature* is a set of vocabulary words: those that end in -ing, those that can be verbs. A list of k words
with c of them in a feature of K out of V words has the hypergeometric tail probability P(C >= c). Many
features are tried, so the smallest tail is no p-value yet: it is corrected twice, by the number of features
(Bonferroni) and by its rank among random lists that went through the same mill (Westfall & Young 1993, min-P).
Both are valid; ranks are sharp but end at 1 / (lists + 1), so the smaller of the two is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse, stats


@dataclass(frozen=True)
class Features:
    """Named sets of vocabulary words that one linguistic level is judged by.

    Args:
        names: [features] what each set is called.
        members: [vocabulary, features] sparse 0/1 matrix.
        share: least share of a list that must lie in a feature before it can describe the list.
    """

    names: tuple[str, ...]
    members: sparse.csr_array
    share: float

    @classmethod
    def of(cls, sets: Sequence[Sequence[str]], share: float) -> Features:
        """From the feature names of each vocabulary word; features of a single word are left out.

        Args:
            sets: [vocabulary] names of the features that each word has.
            share: see above.

        Example:
            >>> Features.of([["-ing"], ["-ing", "un-"], []], 0.25).names
            ('-ing',)
        """
        names, column = np.unique([name for row in sets for name in row], return_inverse=True)
        row = np.repeat(np.arange(len(sets)), [len(of_word) for of_word in sets])
        shape = (len(sets), len(names))
        members = sparse.csr_array((np.ones(len(row), np.int32), (row, column)), shape=shape)
        # Longer names first: of two sets that are equally surprising, ...ight says more than ...ht.
        kept = sorted(np.flatnonzero(members.sum(0) > 1), key=lambda i: (-len(names[i]), names[i]))
        return cls(tuple(str(names[i]) for i in kept), members[:, kept].tocsr(), share)

    @property
    def sizes(self) -> Int[np.ndarray, " features"]:
        """[features] number of vocabulary words in each."""
        return np.asarray(self.members.sum(0)).astype(int)

    def tried(self, k: int) -> int:
        """Number of features large enough to describe a list of ``k`` words."""
        return int((self.sizes >= needed(self.share, k)).sum())


def needed(share: float, k: int) -> int:
    """Least number of words that make up ``share`` of ``k``.

    Example:
        >>> needed(0.25, 30), needed(0.5, 30)
        (8, 15)
    """
    return max(int(np.ceil(share * k - 1e-9)), 2)


def best_feature(
    features: Features, lists: Int[np.ndarray, "lists k"]
) -> tuple[Float[np.ndarray, " lists"], Int[np.ndarray, " lists"]]:
    """The most surprising feature of each list.

    Args:
        features: the features tried.
        lists: [lists, k] vocabulary indices, no repeats within a list.

    Returns:
        [lists] smallest hypergeometric tail probability, 1 where no feature reaches its share, and
        [lists] index of that feature (-1 where there is none).

    Example:
        >>> f = Features.of([["a"], ["a"], [], [], [], []], 0.5)
        >>> best_feature(f, np.array([[0, 1], [2, 3]]))[0].round(4).tolist()  # 1 of the 15 pairs
        [0.0667, 1.0]
    """
    n, k = lists.shape
    least, index = np.ones(n), np.full(n, -1)
    if not features.names:
        return least, index
    shape = (n, features.members.shape[0])
    chosen = sparse.csr_array((np.ones(n * k, np.int32), lists.ravel(), np.arange(0, n * k + 1, k)), shape=shape)
    counts = sparse.coo_array(chosen @ features.members)
    enough = counts.data >= needed(features.share, k)
    row, column, count = counts.row[enough], counts.col[enough], counts.data[enough]
    if not len(row):
        return least, index
    kinds, kind = np.unique(features.sizes, return_inverse=True)
    tail = np.asarray(stats.hypergeom.sf(np.arange(k + 1)[None] - 1, shape[1], kinds[:, None], k))
    p = tail[kind[column], count]
    order = np.lexsort((column, p, row))  # the first of each row is its smallest
    rows, first = np.unique(row[order], return_index=True)
    least[rows], index[rows] = p[order][first], column[order][first]
    return least, index


def rank_p(values: Float[np.ndarray, _], null: Float[np.ndarray, _]) -> Float[np.ndarray, _]:
    """Share of null values that are as small, the value itself counted (Phipson & Smyth 2010).

    Example:
        >>> rank_p(np.array([0.0, 0.3]), np.array([0.1, 0.2, 0.5])).tolist()
        [0.25, 0.75]
    """
    return (1 + np.searchsorted(np.sort(null), values, side="right")) / (len(null) + 1)


def corrected(values: Float[np.ndarray, _], null: Float[np.ndarray, _], tried: int) -> Float[np.ndarray, _]:
    """A level's p-value: by rank among random lists, or by Bonferroni where that is smaller.

    Args:
        values: smallest tail probabilities.
        null: those of random lists.
        tried: number of features among which the smallest was found.

    Example:
        >>> corrected(np.array([1e-9]), np.array([0.1, 0.2, 0.5]), 10).tolist()
        [1e-08]
    """
    return np.minimum(rank_p(values, null), np.minimum(values * max(tried, 1), 1.0))
