"""Rules of the lexical annotator (chance, spelling, vectors) against plain re-statements."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest

from shiftlens.annotate.chance import Features, best_feature, corrected, rank_p
from shiftlens.annotate.nearness import directions, near_seeds, together
from shiftlens.annotate.spelling import affix_meanings, spell

pytestmark = pytest.mark.quick

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
