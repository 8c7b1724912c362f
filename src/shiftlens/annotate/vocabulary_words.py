"""A vocabulary prepared for the lexical annotator, and what speaks for each level in lists of its words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from shiftlens.annotate.annotation import LEVELS
from shiftlens.annotate.chance import Features, best_feature, needed
from shiftlens.annotate.nearness import Directions, directions, near_seeds, together
from shiftlens.annotate.spelling import spell
from shiftlens.errors import ConfigError

SHARE = 0.25
"""Least share of a concept's words that a description must hold for."""
SYNTAX_SHARE = 0.5
"""The same for a part of speech, which is to dominate."""
TASK_SEEDS = Path(__file__).parents[1] / "assets" / "annotate" / "tasks.tsv"


@dataclass(frozen=True)
class Vocabulary:
    """Words with everything the rules look up.

    Args:
        words: lower case, each once.
        index: word -> its place.
        root: [words] number of each word's root.
        relatives: mean share of the vocabulary that has a word's root, the word itself left out.
        features: sets of words by level, for all levels but semantics.
        tasks: sets of words by task.
        space: word vectors as directions.
    """

    words: Sequence[str]
    index: Mapping[str, int]
    root: Int[np.ndarray, " words"]
    relatives: float
    features: Mapping[str, Features]
    tasks: Features
    space: Directions


@dataclass(frozen=True)
class Evidence:
    """Tail probabilities of lists of one size, not yet corrected, and what they rest on.

    Args:
        tail: [lists, levels] in the order of :data:`~shiftlens.annotate.annotation.LEVELS`.
        feature: level -> [lists] index of the most surprising feature, -1 where there is none.
        roots: [lists] tail probability of the number of words that share a root.
        cosine: [lists, k] cosine of each word to the direction of the others, -1 where not near.
        task_tail: [lists] tail probability of the most surprising task.
        task: [lists] its index.
    """

    tail: Float[np.ndarray, "lists levels"]
    feature: Mapping[str, Int[np.ndarray, " lists"]]
    roots: Float[np.ndarray, " lists"]
    cosine: Float[np.ndarray, "lists k"]
    task_tail: Float[np.ndarray, " lists"]
    task: Int[np.ndarray, " lists"]


def prepare(
    words: Sequence[str],
    vectors: Float[np.ndarray, "_ dim"],
    parts_of_speech: Callable[[str], Collection[str]],
    seed: int,
) -> Vocabulary:
    """Take a vocabulary apart, once.

    Args:
        words: the vocabulary; words that differ only in case count once, as first seen.
        vectors: [words, dim] static word vectors; a row of NaN is a word without one.
        parts_of_speech: tags that a word can have; empty if not known.
        seed: of the sample of words that stands for the vocabulary.

    Raises:
        ConfigError: there are not as many vectors as words, or no words.
    """
    if len(words) != len(vectors) or not len(words):
        raise ConfigError(f"annotator: needs one vector per word, got {len(words)} words, {len(vectors)} vectors")
    first: dict[str, int] = {}
    for i, word in enumerate(words):
        first.setdefault(word.lower(), i)
    own = tuple(first)
    index = {word: i for i, word in enumerate(own)}
    space = directions(np.asarray(vectors, np.float64)[list(first.values())], seed)
    forms = spell(own)
    _, root = np.unique([form.root for form in forms], return_inverse=True)
    features = {
        "phonology": Features.of([form.letters for form in forms], SHARE),
        "morphology": Features.of([form.affixes for form in forms], SHARE),
        "syntax": Features.of([sorted(parts_of_speech(word)) for word in own], SYNTAX_SHARE),
    }
    relatives = float((np.bincount(root)[root] - 1).mean()) / max(len(own) - 1, 1)
    return Vocabulary(own, index, root, relatives, features, _tasks(index, space), space)


def _tasks(index: Mapping[str, int], space: Directions) -> Features:
    sets: list[list[str]] = [[] for _ in index]
    for line in TASK_SEEDS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            task, words = line.split("\t")
            seeds = np.array([index[word] for word in words.split() if word in index], int)
            for i in near_seeds(space, seeds):
                sets[i].append(task)
    return Features.of(sets, SHARE)


def evidence(vocabulary: Vocabulary, lists: Int[np.ndarray, "lists k"]) -> Evidence:
    """What speaks for each level and task in lists of one size.

    Args:
        vocabulary: the words.
        lists: [lists, k] their indices, no repeats within a list.
    """
    best = {level: best_feature(features, lists) for level, features in vocabulary.features.items()}
    roots = _shared_roots(vocabulary, lists)
    semantics, cosine = together(vocabulary.space, lists, needed(SHARE, lists.shape[1]))
    tails = {level: tail for level, (tail, _) in best.items()}
    tails |= {"morphology": np.minimum(tails["morphology"], roots), "semantics": semantics}
    task_tail, task = best_feature(vocabulary.tasks, lists)
    return Evidence(
        tail=np.stack([tails[level] for level in LEVELS], axis=1),
        feature={level: feature for level, (_, feature) in best.items()},
        roots=roots,
        cosine=cosine,
        task_tail=task_tail,
        task=task,
    )


def tried(vocabulary: Vocabulary, k: int) -> Int[np.ndarray, " levels"]:
    """[levels] how many features each level tries on a list of ``k`` words."""
    counts = {level: features.tried(k) for level, features in vocabulary.features.items()}
    counts |= {"morphology": counts["morphology"] + 1, "semantics": 1}  # the roots are one more
    return np.array([counts[level] for level in LEVELS])


def _shared_roots(vocabulary: Vocabulary, lists: Int[np.ndarray, "lists k"]) -> Float[np.ndarray, " lists"]:
    """Tail probability of the number of words with a relative in the list, about binomial for unrelated words."""
    n, k = lists.shape
    root = np.sort(vocabulary.root[lists], axis=1)
    same, none = root[:, 1:] == root[:, :-1], np.zeros((n, 1), bool)
    count = (np.hstack([none, same]) | np.hstack([same, none])).sum(1)
    chance = min(vocabulary.relatives * (k - 1), 1.0)
    return np.where(count >= needed(SHARE, k), stats.binom.sf(count - 1, k, chance), 1.0)
