"""The Python interface to the weights, against the plain restatement."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from helpers.plain_weights import (
    COMPONENTS,
    ROLES,
    TOP,
    TOP_WORDS,
    VOCABULARY,
    plain_concepts,
    plain_top,
)
from helpers.tiny import tiny
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import shiftlens as sl
from shiftlens.errors import ConfigError
from shiftlens.models.loading import LM
from shiftlens.words import Words, read_words


def check_concepts(found, layer, expected, component, words, cosines):
    """One concept against all cosines of the plain computation; the sign of a component is arbitrary."""
    components, _, cosine = expected
    assert abs(found @ components[component]) == pytest.approx(1, abs=1e-5)
    sign = np.sign(found @ components[component])
    mine = [sign * cosine[component, VOCABULARY.index(word)] for word in words]
    np.testing.assert_allclose(cosines, mine, atol=1e-5)
    best = [abs(cosine[component, i]) for i in plain_top(cosine[component], len(words))]
    np.testing.assert_allclose(np.abs(cosines), best, atol=1e-5)
    assert len(set(words)) == len(words)


def test_concepts_of_a_model_are_those_of_the_method(pair, lms, files):
    for role, folder in zip(ROLES, pair, strict=True):
        found = sl.concepts(lms[role], None, VOCABULARY, COMPONENTS, TOP_WORDS)
        assert list(found.layers) == [0, 1] and found.depth == 2
        for layer, concepts in found.layers.items():
            expected = plain_concepts(folder, lms[role], layer)
            np.testing.assert_allclose(concepts.explained_variance_ratio, expected[1][:COMPONENTS], rtol=1e-4)
            for c in range(COMPONENTS):
                named, cosines = zip(*found.named(layer, c, TOP_WORDS), strict=True)
                assert len(named) == TOP_WORDS
                check_concepts(concepts.components[c], layer, expected, c, named, cosines)


def test_word_pairs_of_every_head_are_those_of_the_method(lms, files, plain):
    assert sum(map(len, plain["base"].values())) > 100
    for role, lm in lms.items():
        found = sl.word_pairs(lm, words=read_words(files / "words.tsv"), vectors=files / "vectors.npz", top=TOP)
        for layer, head in itertools.product(range(2), range(4)):
            named = found.named(layer, head)
            assert {frozenset(each) for each in named} == plain[role][layer, head]
            assert len(named) == len(plain[role][layer, head])


def test_layers_heads_and_words_can_be_chosen(lms, files):
    lm = lms["base"]
    vocabulary = files / "words.tsv"
    every = sl.word_pairs(lm, words=vocabulary, vectors=files / "vectors.npz", top=TOP)
    some = sl.word_pairs(lm, [1], [3, 0], vocabulary, files / "vectors.npz", TOP)
    assert list(some.layers) == [1] and some.heads == (0, 3)
    assert [some.named(1, head) for head in (0, 3)] == [every.named(1, head) for head in (0, 3)]
    as_words = sl.concepts(lm, [1], Words(tuple(VOCABULARY), np.ones(len(VOCABULARY))), 2, 3)
    as_list, as_file = (sl.concepts(lm, [1], words, 2, 3) for words in (VOCABULARY, str(vocabulary)))
    assert as_words.named(1, 1) == as_list.named(1, 1)
    assert {word for word, _ in as_file.named(1, 1)} == {word for word, _ in as_list.named(1, 1)}
    with pytest.raises(ConfigError, match=r"layers=\[2\]: the model has layers 0 to 1"):
        sl.concepts(lm, [2], VOCABULARY)
    with pytest.raises(ConfigError, match=r"heads=\[-1\]: the model has heads 0 to 3"):
        sl.word_pairs(lm, None, [-1], VOCABULARY, files / "vectors.npz")
    with pytest.raises(ConfigError, match="no such file"):
        sl.word_pairs(lm, words=VOCABULARY, vectors=files / "none.npz")


def test_rotation_compares_only_concepts_of_the_same_words(lms):
    base, tuned = (sl.concepts(lms[role], None, VOCABULARY, 4, 5) for role in ROLES)
    assert sl.rotation(base, base)[1].angles.max() < 1e-6
    for layer, turned in sl.rotation(base, tuned).items():
        A, B = (each.layers[layer].components.astype(float) for each in (base, tuned))
        np.testing.assert_allclose(np.cos(turned.angles), np.linalg.svd(A @ B.T, compute_uv=False), atol=1e-6)
    with pytest.raises(ValueError, match="the same words"):
        sl.rotation(base, dataclasses.replace(tuned, words=("other", *tuned.words[1:])))


@pytest.mark.parametrize("family", ["gemma", "gpt2", "opt_projected"])
def test_half_precision_is_computed_in_float32(lms, family):
    """The same numbers as from a float32 model of the same rounded weights."""
    core = Tokenizer(models.WordLevel({f" {word}": 3 + i for i, word in enumerate(VOCABULARY)}))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    half = tiny(family, torch.float32).bfloat16()
    single = tiny(family, torch.float32).bfloat16().float()
    found = [
        sl.concepts(LM(model, tokenizer, "none", lms["base"].identity), None, VOCABULARY, 3, 4)
        for model in (half, single)
    ]
    for layer in range(2):
        one, other = (each.layers[layer] for each in found)
        assert one.components.dtype == np.float32
        np.testing.assert_array_equal(one.words, other.words)
        np.testing.assert_array_equal(one.cosine, other.cosine)
