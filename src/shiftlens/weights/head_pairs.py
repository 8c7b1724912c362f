"""Describes attention heads by word pairs: which words a head relates to which others.

In each dimension of a head, the words with the largest activations on the query side are paired with those on the
key side. A pair counts if both activations have the same sign and the two words could co-occur in a text. What a
head *knows* are the pairs that occur in several of its dimensions (paper, section on self-attention).
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
    """Words from which pairs are made, with their vectors and co-occurrence thresholds; see :func:`lexicon`.

    Args:
        forms: Distinct lower-case words, in order of first appearance.
        form: [words] index of each word in ``forms``.
        vectors: [words, dim] static word vectors of unit length; 0 for a word without a vector.
        threshold: [words] cosine above which another word counts as possibly co-occurring; infinite for a word
            without a vector.
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
    """Prepare words and their static vectors; the result serves any number of heads.

    Args:
        words: [words] words, in the order of the word embeddings.
        vectors: [words, dim] static word vectors of any length; NaN or 0 for a word without a vector.
        threshold: [words] mean + 1.96 std of the cosines of each word to frequent words; a word with NaN is in no
            pair.
        device: Device of the weights.

    Raises:
        ValueError: If the numbers of words, vectors and thresholds differ.

    Example:
        >>> lexicon(["The", "cat", "the"], np.ones((3, 2)), np.array([0.5, 0.5, np.nan])).forms
        ('the', 'cat')
    """
    if not len(words) == len(vectors) == len(threshold):
        raise ValueError(
            f"{len(words)} words need as many vectors and thresholds, got {len(vectors)}, {len(threshold)}"
        )
    index_by_form: dict[str, int] = {}
    form = [index_by_form.setdefault(word.lower(), len(index_by_form)) for word in words]
    # In float64, so that rounding errors do not decide whether a pair counts.
    unit = torch.from_numpy(np.asarray(vectors, np.float64)).to(device)
    length = linalg.vector_norm(unit, dim=1, keepdim=True)
    has_vector = (length > 0) & length.isfinite()
    unit = torch.where(has_vector, unit / length, 0.0)
    limit = torch.from_numpy(np.asarray(threshold, np.float64)).to(device)
    limit = torch.where(has_vector.squeeze(1) & ~limit.isnan(), limit, torch.inf)
    return Lexicon(tuple(index_by_form), torch.tensor(form, dtype=torch.int64, device=device), unit, limit)


def layer_knowledge(
    word_embeddings: Float[Tensor, "words width"],
    query: Float[Tensor, "heads width head"],
    key: Float[Tensor, "heads width head"],
    lexicon: Lexicon,
    top: int = 100,
    least: int = 2,
) -> list[Int64[np.ndarray, "_ 2"]]:
    """Return the word pairs that each head of a layer knows; only one head's activations are in memory at a time.

    Args:
        word_embeddings: [words, width] input embeddings of the lexicon's words.
        query: [heads, width, head] query weights, multiplied by the gain of the preceding norm.
        key: [heads, width, head] key weights, multiplied in the same way, repeated for grouped queries.
        lexicon: Words from which pairs are made, on the same device.
        top: Number of words per side and dimension (100 in the paper); fewer if there are fewer words.
        least: Smallest number of dimensions in which a pair must occur (2 in the paper).

    Returns:
        For each head, its pairs: [pairs, 2] indices into ``lexicon.forms``, the lower one first, in ascending
        order.

    Raises:
        ValueError: If the numbers of words differ, or an activation is not finite.

    Example:
        >>> vectors = np.array([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]])
        >>> words = lexicon(["write", "poem", "read"], vectors, np.full(3, 0.5))
        >>> same = torch.ones(1, 3, 2)  # two dimensions that all three words activate
        >>> [pairs.tolist() for pairs in layer_knowledge(torch.eye(3), same, same, words)]
        [[[0, 1]]]
    """
    if len(word_embeddings) != len(lexicon.form):
        raise ValueError(f"{len(word_embeddings)} word embeddings for a lexicon of {len(lexicon.form)} words")
    E = word_embeddings.detach().to(torch.promote_types(word_embeddings.dtype, torch.float32)).T  # [width, words]
    top = min(top, len(lexicon.form))
    knowledge = []
    for h, (Wq, Wk) in enumerate(zip(query.detach().to(E), key.detach().to(E), strict=True)):
        if h == 0 or not torch.equal(key[h], key[h - 1]):  # heads of grouped queries share one key
            b = Wk.T @ E  # [head, words]
            key_words = top_by_magnitude(b, top)  # [head, top]
            key_signs = b.gather(1, key_words).sign()
        a = Wq.T @ E  # [head, words]
        query_words = top_by_magnitude(a, top)  # [head, top]
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
    """Return the pairs of one head that occur in at least ``least`` of its dimensions: [pairs, 2]."""
    same_sign = query_signs[:, :, None] * key_signs[:, None, :] > 0  # [head, top queries, top keys]
    cosine = lexicon.vectors[query_words] @ lexicon.vectors[key_words].mT
    threshold = torch.maximum(lexicon.threshold[query_words][:, :, None], lexicon.threshold[key_words][:, None, :])
    dimension, q, k = (same_sign & (cosine > threshold)).nonzero(as_tuple=True)
    first, second = lexicon.form[query_words[dimension, q]], lexicon.form[key_words[dimension, k]]
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    # One code per dimension and unordered pair, so that a dimension counts once, however often it has the pair.
    forms = len(lexicon.forms)
    codes = ((dimension * forms + low) * forms + high)[low < high].unique()
    pairs, dimensions = (codes % forms**2).unique(return_counts=True)
    pairs = pairs[dimensions >= least]
    return torch.stack([pairs // forms, pairs % forms], dim=1).cpu().numpy()


def verb_counts(
    knowledge: Sequence[Int64[np.ndarray, "_ 2"]], forms: Sequence[str], verbs: Mapping[str, Collection[str]]
) -> Int64[np.ndarray, "heads verbs"]:
    """Count the pairs of each head that contain each verb.

    Comparing the counts of base and tuned model shows what a head gained or lost.

    Args:
        knowledge: Pairs of each head, as :func:`layer_knowledge` returns them.
        forms: Words into which the pairs' indices point, ``lexicon.forms``.
        verbs: Verb -> lower-case words that stand for it, such as its inflections; words that are not in ``forms``
            are in no pair.

    Returns:
        [heads, verbs] counts, verbs in the order of the mapping. A pair of two forms of one verb counts once.

    Example:
        >>> forms, verbs = ("write", "poem", "writes"), {"write": ["write", "writes", "wrote"], "read": ["read"]}
        >>> verb_counts([np.array([[0, 1], [0, 2]]), np.zeros((0, 2), int)], forms, verbs).tolist()
        [[2, 0], [0, 0]]
    """
    index = {form: i for i, form in enumerate(forms)}
    stands = [(index[word], v) for v, words in enumerate(verbs.values()) for word in set(words) if word in index]
    rows, columns = np.array(stands, np.int64).reshape(-1, 2).T  # [stands] index of the form, of the verb
    membership = csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape=(len(forms), len(verbs)))
    counts = np.zeros((len(knowledge), len(verbs)), np.int64)
    for head, pairs in enumerate(knowledge):
        counts[head] = ((membership[pairs[:, 0]] + membership[pairs[:, 1]]) > 0).sum(axis=0)
    return counts
