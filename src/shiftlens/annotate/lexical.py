"""An annotator that needs no model: it describes a concept by what its words share beyond chance.

Every rule, in order:

1. A concept's words are looked up in the vocabulary in lower case; unknown and repeated ones are left out.
   With fewer than five known words: cannot tell.
2. Each level has its evidence. *Morphology*: an affix, or words that go back to the same roots.
   *Phonology*: first or last letters that are no affix (spelling stands for sound). *Syntax*: a part of speech.
   *Semantics*: words whose vectors lie nearer to the direction of the concept's other words than 95 % of the
   vocabulary does. What counts as affix, root and letters: :mod:`shiftlens.annotate.spelling`.
3. A description must hold for a quarter of the words, a part of speech for half of them: among many words
   less would be beyond chance too, but would describe nothing.
4. Each level's evidence is corrected for all it tried, against random lists of the same number of words
   from the same vocabulary: :mod:`shiftlens.annotate.chance`.
5. The smallest p of the four levels is once more ranked among those of the random lists. Where that rank is at
   most ``alpha`` the concept is described, by the level with the smallest p; else: cannot tell. So a share
   ``alpha`` of random lists gets a description.
6. Tasks are sets of words too: seeds (``assets/annotate/tasks.tsv``) and the 5 % of the vocabulary nearest to
   their mean direction. A described concept has the task that is most surprising, if that passes 3 and 4 at
   ``alpha``; else ``none``.

Chance is uniform over the vocabulary. A concept of rare words, or of words of one register, differs from it and
may be described for that; base and tuned models are judged alike, so their comparison stands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from shiftlens.annotate.annotation import CANNOT_TELL, LEVELS, Annotation, Concept
from shiftlens.annotate.chance import corrected, rank_p
from shiftlens.annotate.spelling import affix_meanings
from shiftlens.annotate.vocabulary_words import Evidence, evidence, prepare, tried
from shiftlens.support.setting_rules import SEED, Number, Rule, refuse, setting_problems

MIN_WORDS = 5
NULL_LISTS = 4000
NAMED = 5
"""Words or roots that a description names at most."""

RULES: Mapping[str, Rule] = {"alpha": Number(0, 1, whole=False, above=True, below=True), "seed": SEED}
"""Rules of the keys of ``conf/annotator/lexical.yaml``."""

_PARTS = {
    "NOUN": "nouns", "PROPN": "names", "VERB": "verbs", "AUX": "auxiliary verbs", "ADJ": "adjectives",
    "ADV": "adverbs", "PRON": "pronouns", "DET": "determiners", "ADP": "prepositions", "NUM": "numbers",
    "CCONJ": "conjunctions", "SCONJ": "conjunctions", "PART": "particles", "INTJ": "interjections",
}  # fmt: skip


def problems(values: Mapping[str, Any]) -> list[str]:
    """Check the keys of ``conf/annotator/lexical.yaml``.

    Args:
        values: Settings by name.

    Returns:
        One line for each setting that cannot be used.

    Example:
        >>> problems({"alpha": 1.5, "seed": 0})
        ['annotator.alpha=1.5: expected a number above 0 and below 1']
    """
    return setting_problems(values, RULES, "annotator.")


@dataclass(frozen=True)
class _Null:
    """Random lists of one size.

    Args:
        found: their evidence.
        least: [lists] the smallest corrected p of the four levels.
    """

    found: Evidence
    least: Float[np.ndarray, " lists"]


class LexicalAnnotator:
    """Describes concepts by affixes, spelling, parts of speech and word vectors; deterministic and offline.

    Args:
        words: the vocabulary from which concepts take their words.
        vectors: [words, dim] static word vectors; a row of NaN is a word without one.
        parts_of_speech: universal part-of-speech tags that a word can have; empty if not known.
        alpha: share of random word lists that may get a description.
        seed: of the random lists.

    Raises:
        ConfigError: ``alpha`` or ``seed`` is out of range, or there are not as many vectors as words.

    Example:
        >>> words = [a + b for a in "bcdfghlmprst" for b in ("an", "ell", "ight", "ore", "un", "ock")]
        >>> vectors = np.full((len(words), 2), np.nan)
        >>> annotator = LexicalAnnotator(words, vectors, lambda word: set())
        >>> (found,) = annotator.annotate([Concept(tuple(w for w in words if w.endswith("ight")))])
        >>> found.level, found.description
        ('phonology', 'words spelled ...ight')
    """

    name = "lexical"

    def __init__(
        self,
        words: Sequence[str],
        vectors: Float[np.ndarray, "_ dim"],
        parts_of_speech: Callable[[str], Collection[str]],
        alpha: float = 0.05,
        seed: int = 0,
    ) -> None:
        refuse(problems({"alpha": alpha, "seed": seed}))
        self._alpha, self._seed = alpha, seed
        self._vocabulary = prepare(words, vectors, parts_of_speech, seed)
        self._nulls: dict[int, _Null] = {}

    def annotate(self, concepts: Sequence[Concept]) -> list[Annotation]:
        """One annotation per concept, in order.

        Args:
            concepts: any number; those with equally many known words are judged together.
        """
        known = [self._known(concept) for concept in concepts]
        answers = [CANNOT_TELL] * len(concepts)
        for k in sorted({len(indices) for indices in known if len(indices) >= MIN_WORDS}):
            where = [i for i, indices in enumerate(known) if len(indices) == k]
            for i, answer in zip(where, self._judge(np.array([known[i] for i in where])), strict=True):
                answers[i] = answer
        return answers

    def _known(self, concept: Concept) -> list[int]:
        words = dict.fromkeys(word.lower() for word in concept.words)
        return [self._vocabulary.index[word] for word in words if word in self._vocabulary.index]

    def _judge(self, lists: Int[np.ndarray, "lists k"]) -> list[Annotation]:
        k, null = lists.shape[1], self._null(lists.shape[1])
        found = evidence(self._vocabulary, lists)
        by_level = self._levels(found, null.found, k)
        p = rank_p(by_level.min(1), null.least)
        level = by_level.argmin(1)
        task_p = corrected(found.task_tail, null.found.task_tail, self._vocabulary.tasks.tried(k))
        answers = [CANNOT_TELL] * len(lists)
        for i in np.flatnonzero(p <= self._alpha):
            description, words = self._describe(LEVELS[level[i]], found, int(i), lists[i])
            task = self._vocabulary.tasks.names[found.task[i]] if task_p[i] <= self._alpha else "none"
            answers[i] = Annotation(description, LEVELS[level[i]], task, float(p[i]), words)
        return answers

    def _null(self, k: int) -> _Null:
        if k not in self._nulls:
            generator = np.random.default_rng([self._seed, k])
            size = len(self._vocabulary.words)
            lists = np.array([generator.choice(size, k, replace=False) for _ in range(NULL_LISTS)])
            found = evidence(self._vocabulary, lists)
            self._nulls[k] = _Null(found, self._levels(found, found, k).min(1))
        return self._nulls[k]

    def _levels(self, found: Evidence, null: Evidence, k: int) -> Float[np.ndarray, "_ levels"]:
        counts = tried(self._vocabulary, k)
        columns = [corrected(found.tail[:, j], null.tail[:, j], int(counts[j])) for j in range(len(LEVELS))]
        return np.stack(columns, axis=1)

    def _describe(
        self, level: str, found: Evidence, i: int, indices: Int[np.ndarray, " k"]
    ) -> tuple[str, tuple[str, ...]]:
        """The line for a list, and the words it rests on."""
        words = np.array(self._vocabulary.words)[indices]
        if level == "semantics":
            near = [j for j in np.argsort(-found.cosine[i], kind="stable") if found.cosine[i][j] > -1]
            return "words near: " + ", ".join(words[near][:NAMED]), tuple(words[near].tolist())
        if level == "morphology" and found.roots[i] == found.tail[i, LEVELS.index(level)]:
            root = self._vocabulary.root[indices]
            shared = [j for j in np.argsort(root, kind="stable") if (root == root[j]).sum() > 1]
            return "forms of the same words: " + ", ".join(words[shared][:NAMED]), tuple(words[shared].tolist())
        features = self._vocabulary.features[level]
        column = found.feature[level][i]
        name, has = features.names[column], features.members[:, [column]].toarray()[indices, 0] > 0
        return _phrase(level, name), tuple(words[has].tolist())


def _phrase(level: str, name: str) -> str:
    if level == "syntax":
        return _PARTS.get(name, name)
    if level == "phonology":
        return f"words spelled {name}"
    where = "ending in" if name.startswith("-") else "beginning with"
    return f"words {where} {name} ({affix_meanings()[name]})"
