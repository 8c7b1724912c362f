"""The lexical annotator: rules against plain re-statements, calibration, planted concepts."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
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
from shiftlens.annotate.chance import Features, best_feature, corrected, rank_p
from shiftlens.annotate.nearness import directions, near_seeds, together
from shiftlens.annotate.spelling import affix_meanings, spell
from shiftlens.annotate.vocabulary_words import evidence

CONF = Path(sl.__file__).parent / "conf" / "annotator"


# --- chance ---------------------------------------------------------------------------------------------------


def test_tail_probability_is_the_share_of_all_lists_that_reach_the_count() -> None:
    sets = [["a", "b"], ["a"], ["a"], ["b"], [], [], [], [], []]
    features = Features.of(sets, 0.5)
    lists = np.array(list(combinations(range(9), 4)))
    least, index = best_feature(features, lists)
    for row, p, feature in zip(lists, least, index, strict=True):
        tails = {}
        for name in ("a", "b"):
            members = {i for i, names in enumerate(sets) if name in names}
            count = len(members & set(row.tolist()))
            reached = sum(len(members & set(other)) >= count for other in combinations(range(9), 4))
            tails[name] = reached / comb(9, 4) if count >= 2 else 1.0
        assert p == pytest.approx(min(tails.values()))
        assert feature == -1 if p == 1 else tails[features.names[feature]] == pytest.approx(p)


def test_correction_is_the_smaller_of_rank_and_bonferroni() -> None:
    null = np.array([0.5, 0.01, 0.2, 0.3])
    for value, tried in ((0.05, 3), (1e-6, 100), (0.4, 1)):
        rank = (1 + sum(n <= value for n in null)) / 5
        assert corrected(np.array([value]), null, tried)[0] == pytest.approx(min(rank, value * tried, 1.0))
    assert rank_p(np.array([1.0]), null)[0] == 1.0


# --- spelling -------------------------------------------------------------------------------------------------


def test_affixes_need_a_word_that_they_were_added_to() -> None:
    words = ["make", "run", "happy", "write", "beauty", "king", "light", "agree"]
    derived = ["making", "running", "happiness", "rewrite", "writers", "writer", "beautify", "disagreement"]
    found = dict(zip(words + derived, spell(words + derived), strict=True))
    expected = {
        "making": (("-ing",), "make"),
        "running": (("-ing",), "run"),
        "happiness": (("-ness",), "happy"),
        "rewrite": (("re-",), "write"),
        "writers": (("-s",), "write"),
        "beautify": (("-ify",), "beauty"),
        "king": ((), "king"),
        "light": ((), "light"),
    }
    assert {word: (found[word].affixes, found[word].root) for word in expected} == expected
    assert found["disagreement"].affixes == ("-ment",)  # "disagree" is no word of this vocabulary, nor "agreement"


def test_letters_stand_for_sound_only_where_no_affix_is() -> None:
    (run, light, running, rerun) = spell(["run", "light", "running", "rerun"])
    assert set(light.letters) == {"l...", "li...", "lig...", "ligh...", "...ht", "...ght", "...ight"}
    assert set(run.letters) == {"r...", "ru...", "...un"}
    assert not any(letters.startswith("...") for letters in running.letters)
    assert all(letters.startswith("...") for letters in rerun.letters)


def test_every_affix_is_marked_as_prefix_or_suffix_and_means_something() -> None:
    for affix, meaning in affix_meanings().items():
        assert affix.startswith("-") != affix.endswith("-") and meaning.strip()


# --- vectors --------------------------------------------------------------------------------------------------


def test_words_near_the_others_against_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 4)) + 2.0
    vectors[[3, 50]] = np.nan
    lists = np.array([[0, 1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15], [50, 3, 7, 8, 9, 6]])
    space = directions(vectors, 0)
    p, cosines = together(space, lists, least=1)
    known = [i for i in range(60) if i not in (3, 50)]
    mean = np.mean([vectors[i] for i in known], axis=0)
    unit = {i: (vectors[i] - mean) / np.linalg.norm(vectors[i] - mean) for i in known}
    for row, found, tail in zip(lists.tolist(), cosines, p, strict=True):
        own = [i for i in row if i in unit]
        total = sum(unit[i] for i in own)
        limit = sorted(unit[i] @ total / np.linalg.norm(total) for i in known)[int(0.95 * len(known))]
        count = 0
        for i, cosine in zip(row, found, strict=True):
            others = total - unit[i] if i in unit else None
            true = unit[i] @ others / np.linalg.norm(others) if others is not None else -1.0
            near = others is not None and true > limit
            count += near
            assert cosine == pytest.approx(true if near else -1.0, abs=1e-5)
        n = len(own)
        chance = sum(comb(n, c) * 0.05**c * 0.95 ** (n - c) for c in range(count, n + 1)) if count else 1.0
        assert tail == pytest.approx(chance)


def test_without_vectors_nothing_is_near_and_a_task_has_its_seeds_alone() -> None:
    space = directions(np.full((9, 3), np.nan), 0)
    assert together(space, np.arange(9)[None], least=1)[0].tolist() == [1.0]
    assert near_seeds(space, np.array([4, 2])).tolist() == [2, 4]


# --- the lexical annotator on English -------------------------------------------------------------------------

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
