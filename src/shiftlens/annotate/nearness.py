"""Measures closeness in meaning with static word vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

NEAR = 0.05
"""Share of the vocabulary that counts as near a direction: the words with the largest cosine to it."""

_SAMPLE, _CHUNK = 1000, 2048


@dataclass(frozen=True)
class Directions:
    """Word vectors as directions from the mean of the vocabulary.

    Args:
        unit: [words, dim] float32 unit vectors; the row of a word without a vector is 0.
        known: [words] whether a word has a vector.
        sample: [sample, dim] random sample of the unit vectors, which represents the vocabulary.
    """

    unit: Float[np.ndarray, "words dim"]
    known: Bool[np.ndarray, " words"]
    sample: Float[np.ndarray, "sample dim"]


def directions(vectors: Float[np.ndarray, "words dim"], seed: int) -> Directions:
    """Subtract the mean of the vocabulary, a component common to all words, and scale the vectors to length 1.

    Args:
        vectors: [words, dim] static word vectors; the row of a word without a vector is NaN.
        seed: Random seed for the sample of 1,000 words.
    """
    known = np.isfinite(vectors).all(1)
    unit = np.zeros(vectors.shape, np.float32)
    if known.any():
        centred = vectors[known] - vectors[known].mean(0)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        unit[known] = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    known_indices = np.flatnonzero(known)
    chosen = np.random.default_rng(seed).choice(known_indices, min(_SAMPLE, len(known_indices)), replace=False)
    return Directions(unit, known, unit[chosen])


def together(
    space: Directions, lists: Int[np.ndarray, "lists k"], least: int
) -> tuple[Float[np.ndarray, " lists"], Float[np.ndarray, "lists k"]]:
    """Count the words of each list that are near the direction of the list's other words, and test the count.

    A word counts if its cosine to the sum of the *other* words' unit vectors exceeds the cosine of 95 % of the
    vocabulary. For unrelated words, the count is approximately binomial with probability 5 %.

    Args:
        space: Word vectors as directions.
        lists: [lists, k] vocabulary indices.
        least: Smallest count that is tested.

    Returns:
        [lists] binomial tail probability, 1 if the count is below ``least``, and [lists, k] cosine of each word to
        the direction of the others, -1 for a word that has no vector or is not near.
    """
    p, cosines = np.ones(len(lists)), np.full(lists.shape, -1.0, np.float32)
    if not len(space.sample):
        return p, cosines
    for start in range(0, len(lists), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        own = space.unit[lists[chunk]]  # [chunk, k, dim]
        total = own.sum(1)  # [chunk, dim]
        others = total[:, None] - own  # [chunk, k, dim]
        cosine = np.einsum("lkd,lkd->lk", own, others) / np.maximum(np.linalg.norm(others, axis=2), 1e-12)
        toward = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        sample_cosine = toward @ space.sample.T  # [chunk, sample]
        rank = min(int((1 - NEAR) * sample_cosine.shape[1]), sample_cosine.shape[1] - 1)
        limit = np.partition(sample_cosine, rank, axis=1)[:, rank]
        near = (cosine > limit[:, None]) & space.known[lists[chunk]]
        count, out_of = near.sum(1), space.known[lists[chunk]].sum(1)
        p[chunk] = np.where(count >= least, stats.binom.sf(count - 1, out_of, NEAR), 1.0)
        cosines[chunk] = np.where(near, cosine, -1.0)
    return p, cosines


def near_seeds(space: Directions, seeds: Int[np.ndarray, " seeds"]) -> Int[np.ndarray, " near"]:
    """Return the vocabulary words near the mean direction of seed words, the seeds included.

    Args:
        space: Word vectors as directions.
        seeds: [seeds] vocabulary indices of the seed words.

    Returns:
        [near] vocabulary indices, sorted.
    """
    close = np.zeros(0, int)
    if space.known[seeds].any():
        cosine = np.where(space.known, space.unit @ space.unit[seeds].sum(0), -np.inf)
        close = np.argsort(-cosine, kind="stable")[: int(NEAR * space.known.sum())]
    return np.union1d(close, seeds).astype(int)
