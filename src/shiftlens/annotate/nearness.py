"""Closeness in meaning, by static word vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

NEAR = 0.05
"""A word is near a direction if it is among this share of the vocabulary that lies closest to it."""

_SAMPLE, _CHUNK = 1000, 2048


@dataclass(frozen=True)
class Directions:
    """Word vectors as directions from the middle of the vocabulary.

    Args:
        unit: [words, dim] float32 unit vectors; zeros for a word without a vector.
        known: [words] whether a word has a vector.
        sample: [sample, dim] some of them, that stand for the vocabulary.
    """

    unit: Float[np.ndarray, "words dim"]
    known: Bool[np.ndarray, " words"]
    sample: Float[np.ndarray, "sample dim"]


def directions(vectors: Float[np.ndarray, "words dim"], seed: int) -> Directions:
    """Centre the vectors on the vocabulary's mean, which all words share, and scale them to length 1.

    Args:
        vectors: [words, dim] static word vectors; a row of NaN is a word without one.
        seed: of the sample of 1,000 words.
    """
    known = np.isfinite(vectors).all(1)
    unit = np.zeros(vectors.shape, np.float32)
    if known.any():
        centred = vectors[known] - vectors[known].mean(0)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        unit[known] = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    where = np.flatnonzero(known)
    chosen = np.random.default_rng(seed).choice(where, min(_SAMPLE, len(where)), replace=False)
    return Directions(unit, known, unit[chosen])


def together(
    space: Directions, lists: Int[np.ndarray, "lists k"], least: int
) -> tuple[Float[np.ndarray, " lists"], Float[np.ndarray, "lists k"]]:
    """How many words of a list are near the direction of the others, and how likely that is by chance.

    A word counts if its cosine to the summed directions of the *other* words is above that of 95 % of
    the vocabulary. Were the words unrelated, the count would be about binomial with probability 5 %.

    Args:
        space: the vectors.
        lists: [lists, k] vocabulary indices.
        least: the least count that says anything.

    Returns:
        [lists] binomial tail probability, 1 below ``least``, and [lists, k] cosine of each word to the
        others' direction, -1 for a word without a vector or not near.
    """
    p, cosines = np.ones(len(lists)), np.full(lists.shape, -1.0, np.float32)
    if not len(space.sample):
        return p, cosines
    for start in range(0, len(lists), _CHUNK):
        part = slice(start, start + _CHUNK)
        own = space.unit[lists[part]]
        total = own.sum(1)
        others = total[:, None] - own
        cosine = np.einsum("lkd,lkd->lk", own, others) / np.maximum(np.linalg.norm(others, axis=2), 1e-12)
        toward = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        vocabulary = toward @ space.sample.T
        place = min(int((1 - NEAR) * vocabulary.shape[1]), vocabulary.shape[1] - 1)
        limit = np.partition(vocabulary, place, axis=1)[:, place]
        near = (cosine > limit[:, None]) & space.known[lists[part]]
        count, out_of = near.sum(1), space.known[lists[part]].sum(1)
        p[part] = np.where(count >= least, stats.binom.sf(count - 1, out_of, NEAR), 1.0)
        cosines[part] = np.where(near, cosine, -1.0)
    return p, cosines


def near_seeds(space: Directions, seeds: Int[np.ndarray, " seeds"]) -> Int[np.ndarray, " near"]:
    """Vocabulary words near the mean direction of some seed words, the seeds included.

    Args:
        space: the vectors.
        seeds: [seeds] vocabulary indices.

    Returns:
        [near] sorted vocabulary indices.
    """
    close = np.zeros(0, int)
    if space.known[seeds].any():
        cosine = np.where(space.known, space.unit @ space.unit[seeds].sum(0), -np.inf)
        close = np.argsort(-cosine, kind="stable")[: int(NEAR * space.known.sum())]
    return np.union1d(close, seeds).astype(int)
