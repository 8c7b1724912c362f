"""Annotates without a model: describes a concept by what its words share more often than by chance.

The rules, in order:

1. The words of a concept are looked up in the vocabulary in lower case; unknown and repeated words are left out.
   With fewer than five known words, the result is "cannot tell".
2. Each level has its evidence. *Morphology*: an affix, or words with the same roots. *Phonology*: first or last
   letters that are no affix (spelling stands for sound). *Syntax*: a part of speech. *Semantics*: words whose
   vectors lie nearer to the mean direction of the concept's other words than 95 % of the vocabulary does.
   :mod:`shiftlens.annotate.spelling` defines affixes, roots and letters.
3. A description must hold for a quarter of the words, and a part of speech for half of them. In a long list, a
   smaller share could also exceed chance, but would not describe the list.
4. The evidence for each level is corrected for everything tried, against random lists of the same number of words
   from the same vocabulary; see :mod:`shiftlens.annotate.chance`.
5. The smallest p of the four levels is then ranked among the smallest p of the random lists. If the p-value by
   rank is at most ``alpha``, the concept is described by the level with the smallest p; otherwise the result is
   "cannot tell". So a share ``alpha`` of random lists gets a description.
6. Tasks are sets of words too: the seeds in ``assets/annotate/tasks.tsv`` and the 5 % of the vocabulary nearest to
   the mean direction of the seeds. A described concept gets the task with the smallest tail probability if that
   task passes rules 3 and 4 at ``alpha``, and otherwise ``none``.

Chance here means words drawn uniformly from the vocabulary. Concepts of rare words, or of words of one register,
differ from it and may be described for that reason alone. This affects base and tuned models equally, so the
comparison of the two remains valid.
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
"""Smallest number of known words with which a concept is described."""
NULL_LISTS = 4000
"""Number of random lists of each size."""
NAMED = 5
"""Largest number of words that a description lists."""

RULES: Mapping[str, Rule] = {"alpha": Number(0, 1, whole=False, above=True, below=True), "seed": SEED}
"""Rules of the keys of ``conf/annotator/lexical.yaml``."""

_TAG_NAMES = {
    "NOUN": "nouns", "PROPN": "names", "VERB": "verbs", "AUX": "auxiliary verbs", "ADJ": "adjectives",
    "ADV": "adverbs", "PRON": "pronouns", "DET": "determiners", "ADP": "prepositions", "NUM": "numbers",
    "CCONJ": "conjunctions", "SCONJ": "conjunctions", "PART": "particles", "INTJ": "interjections",
}  # fmt: skip


def problems(values: Mapping[str, Any]) -> list[str]:
    """Return a message for every invalid key of ``conf/annotator/lexical.yaml``.

    Args:
        values: Settings by name; a missing one has its default value.

    Example:
        >>> problems({"alpha": 1.5, "seed": 0})
        ['annotator.alpha=1.5: expected a number above 0 and below 1']
    """
    return setting_problems(values, RULES, "annotator.")


@dataclass(frozen=True)
class _Null:
    """Random lists of one size.

    Args:
        evidence: Evidence of the random lists.
        smallest_p: [lists] smallest corrected p of the four levels.
    """

    evidence: Evidence
    smallest_p: Float[np.ndarray, " lists"]


class LexicalAnnotator:
    """Annotator that uses affixes, spelling, parts of speech and word vectors; deterministic and offline.

    Args:
        words: Vocabulary that contains the words of the concepts.
        vectors: [words, dim] static word vectors; the row of a word without a vector is NaN.
        parts_of_speech: Function from a word to the universal part-of-speech tags that it can have, empty if
            unknown.
        alpha: Share of random word lists that may get a description.
        seed: Random seed for the random lists and for the sample of words that represents the vocabulary.

    Raises:
        ConfigError: If ``alpha`` or ``seed`` is out of range, or the numbers of vectors and words differ.

    Example:
        >>> words = [a + b for a in "bcdfghlmprst" for b in ("an", "ell", "ight", "ore", "un", "ock")]
        >>> vectors = np.full((len(words), 2), np.nan)
        >>> annotator = LexicalAnnotator(words, vectors, lambda word: set())
        >>> (annotation,) = annotator.annotate([Concept(tuple(w for w in words if w.endswith("ight")))])
        >>> annotation.level, annotation.description
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
        """Annotate concepts.

        Args:
            concepts: Concepts to annotate; those with equally many known words are computed together.

        Returns:
            One annotation per concept, in the same order.
        """
        known = [self._known(concept) for concept in concepts]
        answers = [CANNOT_TELL] * len(concepts)
        for k in sorted({len(indices) for indices in known if len(indices) >= MIN_WORDS}):
            of_size = [i for i, indices in enumerate(known) if len(indices) == k]
            for i, answer in zip(of_size, self._judge(np.array([known[i] for i in of_size])), strict=True):
                answers[i] = answer
        return answers

    def _known(self, concept: Concept) -> list[int]:
        """Return the vocabulary indices of the known words of a concept, without repetition."""
        words = dict.fromkeys(word.lower() for word in concept.words)
        return [self._vocabulary.index[word] for word in words if word in self._vocabulary.index]

    def _judge(self, lists: Int[np.ndarray, "lists k"]) -> list[Annotation]:
        """Annotate lists of equally many known words."""
        k, null = lists.shape[1], self._null(lists.shape[1])
        observed = evidence(self._vocabulary, lists)
        by_level = self._levels(observed, null.evidence, k)
        p = rank_p(by_level.min(1), null.smallest_p)
        level = by_level.argmin(1)
        task_p = corrected(observed.task_tail, null.evidence.task_tail, self._vocabulary.tasks.tried(k))
        answers = [CANNOT_TELL] * len(lists)
        for i in np.flatnonzero(p <= self._alpha):
            description, words = self._describe(LEVELS[level[i]], observed, int(i), lists[i])
            task = self._vocabulary.tasks.names[observed.task[i]] if task_p[i] <= self._alpha else "none"
            answers[i] = Annotation(description, LEVELS[level[i]], task, float(p[i]), words)
        return answers

    def _null(self, k: int) -> _Null:
        """Return the random lists of ``k`` words; computed on first use."""
        if k not in self._nulls:
            generator = np.random.default_rng([self._seed, k])
            size = len(self._vocabulary.words)
            lists = np.array([generator.choice(size, k, replace=False) for _ in range(NULL_LISTS)])
            random = evidence(self._vocabulary, lists)
            self._nulls[k] = _Null(random, self._levels(random, random, k).min(1))
        return self._nulls[k]

    def _levels(self, observed: Evidence, null: Evidence, k: int) -> Float[np.ndarray, "_ levels"]:
        """Return the corrected p of each list and level: [lists, levels]."""
        counts = tried(self._vocabulary, k)
        columns = [corrected(observed.tail[:, j], null.tail[:, j], int(counts[j])) for j in range(len(LEVELS))]
        return np.stack(columns, axis=1)

    def _describe(
        self, level: str, observed: Evidence, i: int, indices: Int[np.ndarray, " k"]
    ) -> tuple[str, tuple[str, ...]]:
        """Return the description of list ``i`` by one level, and the words that the description is based on."""
        words = np.array(self._vocabulary.words)[indices]
        if level == "semantics":
            near = [j for j in np.argsort(-observed.cosine[i], kind="stable") if observed.cosine[i][j] > -1]
            return "words near: " + ", ".join(words[near][:NAMED]), tuple(words[near].tolist())
        if level == "morphology" and observed.roots[i] == observed.tail[i, LEVELS.index(level)]:
            root = self._vocabulary.root[indices]
            shared = [j for j in np.argsort(root, kind="stable") if (root == root[j]).sum() > 1]
            return "forms of the same words: " + ", ".join(words[shared][:NAMED]), tuple(words[shared].tolist())
        features = self._vocabulary.features[level]
        column = observed.feature[level][i]
        name, has = features.names[column], features.members[:, [column]].toarray()[indices, 0] > 0
        return _phrase(level, name), tuple(words[has].tolist())


def _phrase(level: str, name: str) -> str:
    """Return the description of words that share a feature, for every level but semantics."""
    if level == "syntax":
        return _TAG_NAMES.get(name, name)
    if level == "phonology":
        return f"words spelled {name}"
    position = "ending in" if name.startswith("-") else "beginning with"
    return f"words {position} {name} ({affix_meanings()[name]})"
