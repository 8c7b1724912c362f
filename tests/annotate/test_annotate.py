"""The lexical annotator on English: calibration, planted concepts, the same twice."""

from __future__ import annotations

from collections import Counter
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shiftlens as sl
from shiftlens.annotate import (
    CANNOT_TELL,
    Concept,
    LexicalAnnotator,
)
from shiftlens.annotate.spelling import spell
from shiftlens.annotate.vocabulary_words import evidence

COUNTRIES = [
    "germany",
    "france",
    "spain",
    "italy",
    "england",
    "japan",
    "china",
    "india",
    "brazil",
    "canada",
    "mexico",
    "russia",
    "poland",
    "sweden",
    "norway",
    "finland",
    "denmark",
    "greece",
    "turkey",
    "egypt",
    "israel",
    "iran",
    "iraq",
    "pakistan",
    "australia",
    "argentina",
    "chile",
    "peru",
    "cuba",
    "portugal",
]
CODE = [
    "python",
    "javascript",
    "html",
    "css",
    "sql",
    "php",
    "variable",
    "array",
    "boolean",
    "integer",
    "compiler",
    "debugging",
    "algorithm",
    "syntax",
    "server",
    "database",
    "api",
    "json",
    "xml",
    "browser",
    "unix",
    "linux",
    "kernel",
    "repository",
    "interface",
    "plugin",
    "runtime",
    "module",
    "parameter",
    "string",
]


@pytest.fixture(scope="module")
def english() -> tuple[list[str], Any, LexicalAnnotator]:
    """Frequent words, tags from a lemma dictionary, and vectors in which countries and code words lie together."""
    lemminflect = pytest.importorskip("lemminflect", reason="needs the lemma dictionary of lemminflect")
    wordfreq = pytest.importorskip("wordfreq", reason="needs the word list of wordfreq")
    words = [w for w in wordfreq.top_n_list("en", 14_000) if w.isalpha() and w.isascii()][:10_000]
    words += [w for w in COUNTRIES + CODE if w not in words]
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(words), 50))
    vectors[::10] = np.nan  # some words have none
    seeds = (Path(sl.__file__).parent / "assets" / "annotate" / "tasks.tsv").read_text().splitlines()
    coding = next(line.split("\t")[1].split() for line in seeds if line.startswith("coding"))
    for group in (COUNTRIES, CODE + coding):
        members = [i for i, word in enumerate(words) if word in group]
        vectors[members] = rng.normal(size=(len(members), 50)) + 2 * rng.normal(size=50)

    def parts_of_speech(word: str) -> set[str]:
        return set(lemminflect.getAllLemmas(word))

    return words, parts_of_speech, LexicalAnnotator(words, vectors, parts_of_speech)


@pytest.mark.parametrize("k", [10, 30])
def test_random_lists_are_described_about_as_often_as_the_level_says(english: Any, k: int) -> None:
    words, _, annotator = english
    rng = np.random.default_rng(2)
    lists = [Concept(tuple(words[i] for i in rng.choice(len(words), k, replace=False))) for _ in range(3000)]
    told = sum(annotation.told for annotation in annotator.annotate(lists))
    # Binomial(3000, .05) has sd .004, the null's own quantile .0034; discrete features make it a little lower.
    assert 0.03 < told / 3000 < 0.066


def test_planted_concepts_are_recognised(english: Any) -> None:
    words, parts_of_speech, annotator = english
    rng = np.random.default_rng(3)
    pools = {
        "morphology": [w for w in words if w.endswith("ing") and parts_of_speech(w) >= {"VERB"}],
        "phonology": [w for w in words if w.endswith("ight")],
        "syntax": [w for w in words if parts_of_speech(w) == {"VERB"}],
        "semantics": COUNTRIES,
    }
    said = {
        "morphology": "words ending in -ing (progressive)",
        "phonology": "words spelled ...ight",
        "syntax": "verbs",
        "semantics": "words near: ",
    }
    for level, pool in pools.items():
        concepts = [Concept(tuple(rng.choice(pool, min(len(pool), 25), replace=False))) for _ in range(20)]
        found = annotator.annotate(concepts)
        assert [a.level for a in found] == [level] * 20
        assert all((a.description or "").startswith(said[level]) and a.task == "none" for a in found)
        assert all(set(a.words) <= set(c.words) for a, c in zip(found, concepts, strict=True))
        assert all(a.p is not None and a.p < 0.001 for a in found)


def test_half_a_planted_concept_is_enough_for_an_affix_and_for_countries(english: Any) -> None:
    words, _, annotator = english
    rng = np.random.default_rng(4)
    ing = [w for w in words if w.endswith("ing")]
    for level, pool in (("morphology", ing), ("semantics", COUNTRIES)):
        mixed = [
            Concept((*rng.choice(pool, 15, replace=False), *rng.choice(words, 15, replace=False)))
            for _ in range(20)
        ]
        assert sum(a.level == level for a in annotator.annotate(mixed)) >= 18


def test_code_words_serve_coding(english: Any) -> None:
    (found,) = english[2].annotate([Concept(tuple(CODE))])
    assert (found.level, found.task) == ("semantics", "coding")


def test_forms_of_the_same_words_are_morphology(english: Any) -> None:
    forms = (
        "play player playing played plays teach teacher teaching build building builds writer writing writes write"
    )
    (found,) = english[2].annotate([Concept(tuple(forms.split()))])
    assert found.level == "morphology"
    assert (found.description or "").startswith("forms of the same words: ")


def test_shared_roots_against_a_plain_count(english: Any) -> None:
    vocabulary = english[2]._vocabulary
    chosen = ["play", "played", "plays", "teach", "teacher", "house", "tree", "seven", "blue", "because"]
    tail = evidence(vocabulary, np.array([[vocabulary.index[word] for word in chosen]])).roots[0]
    roots = [form.root for form in spell(vocabulary.words)]
    family = Counter(roots)
    q = np.mean([family[root] - 1 for root in roots]) / (len(roots) - 1) * 9
    assert tail == pytest.approx(sum(comb(10, c) * q**c * (1 - q) ** (10 - c) for c in range(5, 11)))


def test_unknown_and_repeated_words_do_not_count(english: Any) -> None:
    words, _, annotator = english
    ing = [w for w in words if w.endswith("ing")][:12]
    plain, noisy = annotator.annotate([Concept(tuple(ing)), Concept((*ing, "xqzzq", ing[0].upper(), ing[1]))])
    assert plain == noisy
    assert annotator.annotate([Concept(("xqzzq", *ing[:4]))]) == [CANNOT_TELL]
    assert annotator.annotate([]) == []


def test_the_same_twice_and_in_any_order(english: Any) -> None:
    words, parts_of_speech, _ = english
    small, rng = words[:2000], np.random.default_rng(5)
    vectors = rng.normal(size=(2000, 8))
    concepts = [Concept(tuple(rng.choice(small, k, replace=False))) for k in (12, 20, 12, 20, 12)]
    concepts.append(Concept(tuple(w for w in small if w.endswith("ing"))[:20]))
    first = LexicalAnnotator(small, vectors, parts_of_speech).annotate(concepts)
    second = LexicalAnnotator(small, vectors, parts_of_speech).annotate(concepts[::-1])[::-1]
    assert first == second and first[-1].told
