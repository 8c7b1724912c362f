"""Word pairs that attention heads know, against a plain re-statement of the method, and verbs counted in them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from helpers.plain_weights import plain_top

from shiftlens.weights import (
    layer_knowledge,
    lexicon,
    verb_counts,
)

pytestmark = pytest.mark.quick


def plain_knowledge(E, Wq, Wk, words, vectors, threshold, top, least):
    """Section 3 of the method, word by word: the pairs of one head as sets of lower-case words."""
    dimensions: dict[frozenset[str], set[int]] = {}
    for i in range(Wq.shape[1]):
        a, b = E @ Wq[:, i], E @ Wk[:, i]
        for q, k in itertools.product(plain_top(a, top), plain_top(b, top)):
            if not a[q] * b[k] > 0 or np.isnan(vectors[[q, k]]).any():
                continue
            cosine = vectors[q] @ vectors[k] / math.sqrt((vectors[q] @ vectors[q]) * (vectors[k] @ vectors[k]))
            pair = frozenset([words[q].lower(), words[k].lower()])
            if cosine > threshold[q] and cosine > threshold[k] and len(pair) == 2:
                dimensions.setdefault(pair, set()).add(i)
    return {pair for pair, found in dimensions.items() if len(found) >= least}


@pytest.fixture
def head_data():
    """70 words of which some are one word in two cases, have no vector, no threshold, or one embedding."""
    rng = np.random.default_rng(0)
    words = [f"word{index}" for index in range(60)] + [f"Word{index}" for index in range(5)] + list("ABCDE")
    topic = rng.standard_normal((70, 4))
    vectors = topic @ rng.standard_normal((4, 6)) + 0.5 * rng.standard_normal((70, 6))
    vectors[[3, 7, 62]] = np.nan
    threshold = rng.uniform(0.1, 0.4, 70)
    threshold[[4, 8]] = np.nan
    E = topic @ rng.standard_normal((4, 10)) + 0.5 * rng.standard_normal((70, 10))
    E[20:24] = E[20]
    E[[30, 31]] = 0.0
    Wq, Wk = rng.standard_normal((2, 4, 10, 6)).round(1) * 10
    E = (E * 8).round()  # whole numbers: activations are exact, so that equal words tie in any order of summation
    Wq[1, :, 2] = 0.0  # a dead dimension
    Wk[[1, 3]] = Wk[[0, 2]]  # grouped queries
    return words, vectors, threshold, E, Wq, Wk


@pytest.mark.parametrize(("top", "least"), [(12, 2), (70, 3), (5, 1), (100, 2)])
def test_every_head_knows_the_pairs_of_the_plain_definition(head_data, top, least):
    words, vectors, threshold, E, Wq, Wk = head_data
    lexical = lexicon(words, vectors, threshold)
    found = layer_knowledge(*map(torch.from_numpy, (E, Wq, Wk)), lexical, top, least)
    assert len(found) == 4
    for h, pairs in enumerate(found):
        expected = plain_knowledge(E, Wq[h], Wk[h], words, vectors, threshold, top, least)
        assert {frozenset([lexical.forms[i], lexical.forms[j]]) for i, j in pairs} == expected
        assert len(pairs) == len(expected) > 0
        assert (pairs[:, 0] < pairs[:, 1]).all()
        assert pairs.tolist() == sorted(pairs.tolist())
    named = {lexical.forms[index] for pairs in found for index in np.unique(pairs)}
    assert not named & {"word7", "word8"}  # no vector, no threshold; word2, word3 and word4 have two spellings


def test_a_head_without_activation_knows_nothing(head_data):
    words, vectors, threshold, E, Wq, Wk = head_data
    zero = torch.zeros(1, 10, 6, dtype=torch.float64)
    (pairs,) = layer_knowledge(torch.from_numpy(E), zero, zero, lexicon(words, vectors, threshold), top=10)
    assert pairs.shape == (0, 2)


def test_word_lists_that_do_not_fit_are_refused(head_data):
    words, vectors, threshold, E, Wq, Wk = head_data
    with pytest.raises(ValueError, match="69 words need as many vectors"):
        lexicon(words[1:], vectors, threshold)
    with pytest.raises(ValueError, match="69 word embeddings for a lexicon of 70 words"):
        layer_knowledge(*map(torch.from_numpy, (E[1:], Wq, Wk)), lexicon(words, vectors, threshold))


def test_verbs_are_counted_once_per_pair():
    rng = np.random.default_rng(0)
    forms = [f"w{index}" for index in range(12)]
    verbs = {"one": ["w1"], "two": ["w2", "w3", "w3", "absent"], "none": ["absent"], "shared": ["w3", "w11"]}
    everything = np.array(list(itertools.combinations(range(12), 2)))
    knowledge = [everything[rng.random(66) < 0.4] for _ in range(3)] + [np.zeros((0, 2), np.int64)]
    expected = [
        [sum(bool({forms[i], forms[j]} & set(written)) for i, j in pairs) for written in verbs.values()]
        for pairs in knowledge
    ]
    assert verb_counts(knowledge, forms, verbs).tolist() == expected
    assert expected[0][1] > 0
