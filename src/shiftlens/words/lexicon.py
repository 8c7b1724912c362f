"""Reads the vocabulary, the verbs and the word vectors that the configuration group ``words`` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int

from shiftlens.errors import ConfigError
from shiftlens.support.setting_rules import Flag, Number, Rule, refuse, setting_problems
from shiftlens.words.vectors import FREQUENT, Vectors, cooccurrence_threshold, load_vectors
from shiftlens.words.verbs import general_verbs, instruction_verbs, verb_indices
from shiftlens.words.vocabulary import SIZE, Words, frequent_words, read_words

T = TypeVar("T")
WORD_RULES: Mapping[str, Rule] = {"size": Number(1, optional=True), "inflections": Flag()}
"""Rules of the keys of ``conf/words`` that name no file."""


@dataclass(frozen=True)
class Lexicon:
    """A vocabulary with its verbs and its word vectors.

    Args:
        words: The vocabulary.
        instruction: Instruction verb -> indices of the words that stand for it.
        general: General verb -> indices of the words that stand for it.
        vectors_source: ``glove`` or a file, read on first use.
        cache: Folder for fetched files.
    """

    words: Words
    instruction: Mapping[str, Int[np.ndarray, " _"]]
    general: Mapping[str, Int[np.ndarray, " _"]]
    vectors_source: str
    cache: Path

    @cached_property
    def vectors(self) -> Vectors:
        """The word vectors."""
        return load_vectors(self.vectors_source, self.cache)

    @cached_property
    def unit(self) -> Float[np.ndarray, "words dim"]:
        """[words, dim] unit vectors of the vocabulary, see :meth:`~shiftlens.words.vectors.Vectors.unit`."""
        return self.vectors.unit(self.words.words)

    @cached_property
    def threshold(self) -> Float[np.ndarray, " words"]:
        """[words] cosine above which a word could co-occur with each word of the vocabulary."""
        return cooccurrence_threshold(self.vectors, self.words.words, self.words.first(FREQUENT).words)


def lexicon_from_config(words: Mapping[str, Any], cache: str | Path) -> Lexicon:
    """Read the configuration group ``words``.

    Args:
        words: Keys ``vocabulary, size, vectors, instruction_verbs, general_verbs, inflections``, explained in
            ``conf/words/default.yaml``; a key that is missing has the value it has there.
        cache: Folder for fetched files.

    Raises:
        ConfigError: Lists every key and every file that is wrong.

    Example:
        >>> lexicon = lexicon_from_config({"size": 1000}, "~/.cache/shiftlens")
        >>> len(lexicon.words), lexicon.words.words[int(lexicon.instruction["summarize"][0])]
        (1000, 'summarize')
    """
    problems = setting_problems(words, WORD_RULES, "words.")
    size, inflections = words.get("size", SIZE), words.get("inflections", False)
    if WORD_RULES["size"].expected(size):
        size = None  # the other keys are checked all the same
    vectors = str(words.get("vectors", "glove"))
    if vectors != "glove" and not Path(vectors).expanduser().is_file():
        problems.append(f"words.vectors={vectors}: no such file; name a file of word vectors, or glove")
    lists = words.get("instruction_verbs"), words.get("general_verbs")
    instruction = _try(problems, "instruction_verbs", lambda: instruction_verbs(lists[0])) or ()
    general = _try(problems, "general_verbs", lambda: general_verbs(lists[1])) or ()
    if both := [verb for verb in general if verb in instruction]:
        problems.append(f"words.general_verbs: {', '.join(both)} are among the instruction verbs too")
    source = str(words.get("vocabulary", "frequent"))
    vocabulary = _try(problems, "vocabulary", lambda: _vocabulary(source, size, (*instruction, *general)))
    refuse(problems)
    assert vocabulary is not None, "its fault was a problem"
    return Lexicon(
        vocabulary,
        verb_indices(instruction, vocabulary.words, inflections),
        verb_indices(general, vocabulary.words, inflections),
        vectors,
        Path(cache).expanduser(),
    )


def _vocabulary(source: str, size: int | None, include: Sequence[str]) -> Words:
    return frequent_words(size or SIZE, include) if source == "frequent" else read_words(source, size)


def _try(problems: list[str], key: str, read: Callable[[], T]) -> T | None:
    """Return what ``read`` returns; on an error add a problem and return ``None``."""
    try:
        return read()
    except ConfigError as error:
        problems.append(f"words.{key}: {error}")
        return None
