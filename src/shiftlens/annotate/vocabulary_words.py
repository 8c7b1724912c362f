"""Prepares a vocabulary for the lexical annotator, and computes the evidence for each level in lists of words."""

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
"""Smallest share of a concept's words for which a description must hold."""
SYNTAX_SHARE = 0.5
"""Smallest share for a part of speech, which must dominate."""
TASK_SEEDS = Path(__file__).parents[1] / "assets" / "annotate" / "tasks.tsv"


@dataclass(frozen=True)
class Vocabulary:
    """Vocabulary with everything that the rules look up.

    Args:
        words: Words in lower case, without repetition.
        index: Word -> index in ``words``.
        root: [words] number of each word's root; equal for words with the same root.
        relatives: Mean share of the vocabulary that has the same root as a word, the word itself not counted.
        features: Level -> features of the level, for all levels but semantics.
        tasks: Sets of words by task.
        space: Word vectors as directions.
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
    """Uncorrected tail probabilities of lists of one size, and the features they come from.

    Args:
        tail: [lists, levels] tail probability, in the order of :data:`~shiftlens.annotate.annotation.LEVELS`.
        feature: Level -> [lists] index of the feature with the smallest tail probability, -1 if there is none.
        roots: [lists] tail probability of the number of words that share a root with another.
        cosine: [lists, k] cosine of each word to the direction of the others, -1 if not near.
        task_tail: [lists] smallest tail probability of the tasks.
        task: [lists] index of that task, -1 if there is none.
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
    """Prepare a vocabulary: spelling, parts of speech, tasks and directions of its words.

    Args:
        words: Vocabulary; of words that differ only in case, the first is used.
        vectors: [words, dim] static word vectors; the row of a word without a vector is NaN.
        parts_of_speech: Function from a word to the tags that it can have, empty if unknown.
        seed: Random seed for the sample of words that represents the vocabulary.

    Raises:
        ConfigError: If the numbers of vectors and words differ, or there are no words.
    """
    if len(words) != len(vectors) or not len(words):
        raise ConfigError(f"annotator: needs one vector per word, got {len(words)} words, {len(vectors)} vectors")
    first_index: dict[str, int] = {}
    for i, word in enumerate(words):
        first_index.setdefault(word.lower(), i)
    distinct = tuple(first_index)
    index = {word: i for i, word in enumerate(distinct)}
    space = directions(np.asarray(vectors, np.float64)[list(first_index.values())], seed)
    forms = spell(distinct)
    _, root = np.unique([form.root for form in forms], return_inverse=True)
    features = {
        "phonology": Features.of([form.letters for form in forms], SHARE),
        "morphology": Features.of([form.affixes for form in forms], SHARE),
        "syntax": Features.of([sorted(parts_of_speech(word)) for word in distinct], SYNTAX_SHARE),
    }
    relatives = float((np.bincount(root)[root] - 1).mean()) / max(len(distinct) - 1, 1)
    return Vocabulary(distinct, index, root, relatives, features, _tasks(index, space), space)


def _tasks(index: Mapping[str, int], space: Directions) -> Features:
    """Return the tasks as features: a word belongs to a task if it is a seed of the task or near its seeds."""
    sets: list[list[str]] = [[] for _ in index]
    for line in TASK_SEEDS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            task, words = line.split("\t")
            seeds = np.array([index[word] for word in words.split() if word in index], int)
            for i in near_seeds(space, seeds):
                sets[i].append(task)
    return Features.of(sets, SHARE)


def evidence(vocabulary: Vocabulary, lists: Int[np.ndarray, "lists k"]) -> Evidence:
    """Compute the evidence for each level and task in lists of one size.

    Args:
        vocabulary: Prepared vocabulary.
        lists: [lists, k] vocabulary indices, without repetition within a list.
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
    """[levels] number of features that each level tries on a list of ``k`` words."""
    counts = {level: features.tried(k) for level, features in vocabulary.features.items()}
    counts |= {"morphology": counts["morphology"] + 1, "semantics": 1}  # morphology also tries the roots
    return np.array([counts[level] for level in LEVELS])


def _shared_roots(vocabulary: Vocabulary, lists: Int[np.ndarray, "lists k"]) -> Float[np.ndarray, " lists"]:
    """[lists] tail probability of the number of words that share their root with another word of the list.

    For unrelated words, the number is approximately binomial.
    """
    n, k = lists.shape
    root = np.sort(vocabulary.root[lists], axis=1)  # [lists, k]; equal roots are neighbours
    same, none = root[:, 1:] == root[:, :-1], np.zeros((n, 1), bool)
    count = (np.hstack([none, same]) | np.hstack([same, none])).sum(1)
    chance = min(vocabulary.relatives * (k - 1), 1.0)
    return np.where(count >= needed(SHARE, k), stats.binom.sf(count - 1, k, chance), 1.0)
