"""Attention heads as word pairs (paper, section on self-attention): which words a head relates to which.

In each dimension of a head, the words that its query side answers to most strongly are paired with those
of its key side. A pair counts where both activations have one sign and the words could stand together in
a text; what a head *knows* are the pairs that several of its dimensions agree on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.sparse import csr_array
from torch import Tensor, linalg

from shiftlens.weights.ranking import top_by_magnitude


@dataclass(frozen=True)
class Lexicon:
    """The words that pairs are made of, and which of them could co-occur; see :func:`lexicon`.

    Args:
        forms: the distinct lower-case words, in order of first appearance.
        form: [words] index in ``forms`` of each word.
        vectors: [words, dim] static word vectors of unit length, 0 where a word has none.
        threshold: [words] cosine above which a word co-occurs with another; infinite without a vector.
    """

    forms: tuple[str, ...]
    form: Int64[Tensor, " words"]
    vectors: Float[Tensor, "words dim"]
    threshold: Float[Tensor, " words"]


def lexicon(
    words: Sequence[str],
    vectors: Float[np.ndarray, "words dim"],
    threshold: Float[np.ndarray, " words"],
    device: torch.device | str = "cpu",
) -> Lexicon:
    """Prepare words and their static vectors for the pairs of any number of heads.

    Args:
        words: [words], in the order of the word embeddings.
        vectors: [words, dim] static word vectors of any length; NaN or 0 where a word has none.
        threshold: [words] mean + 1.96 std of a word's cosine to frequent words; NaN lets it pair with none.
        device: where the weights are.

    Raises:
        ValueError: the lengths differ.

    Example:
        >>> lexicon(["The", "cat", "the"], np.ones((3, 2)), np.array([0.5, 0.5, np.nan])).forms
        ('the', 'cat')
    """
    if not len(words) == len(vectors) == len(threshold):
        raise ValueError(
            f"{len(words)} words need as many vectors and thresholds, got {len(vectors)}, {len(threshold)}"
        )
    place: dict[str, int] = {}
    form = [place.setdefault(word.lower(), len(place)) for word in words]
    # In float64, so that no pair hangs on rounding.
    found = torch.from_numpy(np.asarray(vectors, np.float64)).to(device)
    length = linalg.vector_norm(found, dim=1, keepdim=True)
    known = (length > 0) & length.isfinite()
    found = torch.where(known, found / length, 0.0)
    least = torch.from_numpy(np.asarray(threshold, np.float64)).to(device)
    least = torch.where(known.squeeze(1) & ~least.isnan(), least, torch.inf)
    return Lexicon(tuple(place), torch.tensor(form, dtype=torch.int64, device=device), found, least)


def layer_knowledge(
    word_embeddings: Float[Tensor, "words width"],
    query: Float[Tensor, "heads width head"],
    key: Float[Tensor, "heads width head"],
    lexicon: Lexicon,
    top: int = 100,
    least: int = 2,
) -> list[Int64[np.ndarray, "_ 2"]]:
    """The word pairs that each head of a layer knows. One head's activations are held at a time.

    Args:
        word_embeddings: [words, width] input embeddings of the lexicon's words.
        query: [heads, width, head] query weights, the norm's gain folded in.
        key: [heads, width, head] key weights, those of grouped queries repeated.
        lexicon: the words; on the same device.
        top: words per side and dimension (100 in the paper); fewer where there are fewer words.
        least: dimensions that must have a pair (2 in the paper).

    Returns:
        For each head the pairs [pairs, 2] as indices in ``lexicon.forms``, the lower first, in rising order.

    Raises:
        ValueError: the numbers of words differ, or activations are not finite.

    Example:
        >>> vectors = np.array([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]])
        >>> words = lexicon(["write", "poem", "read"], vectors, np.full(3, 0.5))
        >>> same = torch.ones(1, 3, 2)  # two dimensions that all three words activate
        >>> [pairs.tolist() for pairs in layer_knowledge(torch.eye(3), same, same, words)]
        [[[0, 1]]]
    """
    if len(word_embeddings) != len(lexicon.form):
        raise ValueError(f"{len(word_embeddings)} word embeddings for a lexicon of {len(lexicon.form)} words")
    E = word_embeddings.detach().to(torch.promote_types(word_embeddings.dtype, torch.float32)).T
    top = min(top, len(lexicon.form))
    knowledge = []
    for h, (Wq, Wk) in enumerate(zip(query.detach().to(E), key.detach().to(E), strict=True)):
        if h == 0 or not torch.equal(key[h], key[h - 1]):  # grouped queries share their keys
            b = Wk.T @ E
            key_words = top_by_magnitude(b, top)
            key_signs = b.gather(1, key_words).sign()
        a = Wq.T @ E
        query_words = top_by_magnitude(a, top)
        query_signs = a.gather(1, query_words).sign()
        knowledge.append(_agreed(query_words, query_signs, key_words, key_signs, lexicon, least))
    return knowledge


def _agreed(
    query_words: Int64[Tensor, "head top"],
    query_signs: Float[Tensor, "head top"],
    key_words: Int64[Tensor, "head top"],
    key_signs: Float[Tensor, "head top"],
    lexicon: Lexicon,
    least: int,
) -> Int64[np.ndarray, "_ 2"]:
    """Pairs of one head that at least ``least`` of its dimensions have."""
    positive = query_signs[:, :, None] * key_signs[:, None, :] > 0
    cosine = lexicon.vectors[query_words] @ lexicon.vectors[key_words].mT
    threshold = torch.maximum(lexicon.threshold[query_words][:, :, None], lexicon.threshold[key_words][:, None, :])
    dimension, q, k = (positive & (cosine > threshold)).nonzero(as_tuple=True)
    first, second = lexicon.form[query_words[dimension, q]], lexicon.form[key_words[dimension, k]]
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    # One number per dimension and unordered pair: a dimension counts once, however often it has the pair.
    forms = len(lexicon.forms)
    codes = ((dimension * forms + low) * forms + high)[low < high].unique()
    pairs, dimensions = (codes % forms**2).unique(return_counts=True)
    pairs = pairs[dimensions >= least]
    return torch.stack([pairs // forms, pairs % forms], dim=1).cpu().numpy()


def verb_counts(
    knowledge: Sequence[Int64[np.ndarray, "_ 2"]], forms: Sequence[str], verbs: Mapping[str, Collection[str]]
) -> Int64[np.ndarray, "heads verbs"]:
    """How many of each head's pairs have each verb; base and tuned compared give what a head gained or lost.

    Args:
        knowledge: per head, pairs as :func:`layer_knowledge` returns them.
        forms: the words that the pairs index, ``lexicon.forms``.
        verbs: for each verb the lower-case words that stand for it, such as its inflections; words that are
            not in ``forms`` have no pairs.

    Returns:
        [heads, verbs] counts, verbs in the order of the mapping. A pair of two forms of a verb counts once.

    Example:
        >>> forms, verbs = ("write", "poem", "writes"), {"write": ["write", "writes", "wrote"], "read": ["read"]}
        >>> verb_counts([np.array([[0, 1], [0, 2]]), np.zeros((0, 2), int)], forms, verbs).tolist()
        [[2, 0], [0, 0]]
    """
    place = {form: index for index, form in enumerate(forms)}
    stands = [(place[word], v) for v, words in enumerate(verbs.values()) for word in set(words) if word in place]
    rows, columns = np.array(stands, np.int64).reshape(-1, 2).T
    membership = csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape=(len(forms), len(verbs)))
    counts = np.zeros((len(knowledge), len(verbs)), np.int64)
    for head, pairs in enumerate(knowledge):
        counts[head] = ((membership[pairs[:, 0]] + membership[pairs[:, 1]]) > 0).sum(axis=0)
    return counts
