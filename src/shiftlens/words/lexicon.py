"""Loads the vocabulary, verb lists and word vectors that the configuration group ``words`` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int

from shiftlens.errors import ConfigError
from shiftlens.support.conf_files import with_defaults
from shiftlens.support.setting_rules import Flag, Number, Rule, refuse, setting_problems
from shiftlens.words.vectors import FREQUENT, Vectors, cooccurrence_threshold, load_vectors
from shiftlens.words.verbs import general_verbs, instruction_verbs, verb_indices
from shiftlens.words.vocabulary import SIZE, Words, frequent_words, read_words

T = TypeVar("T")
WORD_RULES: Mapping[str, Rule] = {"size": Number(1, optional=True), "inflections": Flag()}
"""Rules of the keys of ``conf/words`` that name no file."""


@dataclass(frozen=True)
class Lexicon:
    """Vocabulary with its verbs and its word vectors.

    Args:
        words: Vocabulary, most frequent word first.
        instruction: Instruction verb -> indices of the vocabulary words that stand for it.
        general: General verb -> indices of the vocabulary words that stand for it.
        vectors_source: ``glove``, or a file of word vectors; loaded on first use.
        cache: Folder for downloaded files.
    """

    words: Words
    instruction: Mapping[str, Int[np.ndarray, " _"]]
    general: Mapping[str, Int[np.ndarray, " _"]]
    vectors_source: str
    cache: Path

    @cached_property
    def vectors(self) -> Vectors:
        """Word vectors, as loaded from ``vectors_source``."""
        return load_vectors(self.vectors_source, self.cache)

    @cached_property
    def unit(self) -> Float[np.ndarray, "words dim"]:
        """[words, dim] unit vectors of the vocabulary; see :meth:`~shiftlens.words.vectors.Vectors.unit`."""
        return self.vectors.unit(self.words.words)

    @cached_property
    def threshold(self) -> Float[np.ndarray, " words"]:
        """[words] co-occurrence threshold of each vocabulary word, a cosine.

        See :func:`~shiftlens.words.vectors.cooccurrence_threshold`; the reference words are the first
        :data:`~shiftlens.words.vectors.FREQUENT` words of the vocabulary.
        """
        return cooccurrence_threshold(self.vectors, self.words.words, self.words.first(FREQUENT).words)


def lexicon_from_config(words: Mapping[str, Any], cache: str | Path) -> Lexicon:
    """Load what the ``words`` group of the configuration names.

    Args:
        words: Keys ``vocabulary, size, vectors, instruction_verbs, general_verbs, inflections``, explained in
            ``conf/words/default.yaml``; a missing key has the value given there.
        cache: Folder for downloaded files.

    Raises:
        ConfigError: If a value or a file is invalid; the message lists all of them.

    Example:
        >>> from shiftlens.support.cache_path import cache_dir
        >>> lexicon = lexicon_from_config({"size": 1000}, cache_dir())
        >>> len(lexicon.words), lexicon.words.words[int(lexicon.instruction["summarize"][0])]
        (1000, 'summarize')
    """
    words = with_defaults("words", "default", words)
    problems = setting_problems(words, WORD_RULES, "words.")
    size, inflections = words["size"], words["inflections"]
    if WORD_RULES["size"].expected(size):
        size = None  # the other keys are checked all the same
    vectors = str(words["vectors"])
    if vectors != "glove" and not Path(vectors).expanduser().is_file():
        problems.append(f"words.vectors={vectors}: no such file; name a file of word vectors, or glove")
    verb_files = words["instruction_verbs"], words["general_verbs"]
    instruction = _try(problems, "instruction_verbs", lambda: instruction_verbs(verb_files[0])) or ()
    general = _try(problems, "general_verbs", lambda: general_verbs(verb_files[1])) or ()
    if both := [verb for verb in general if verb in instruction]:
        problems.append(f"words.general_verbs: {', '.join(both)} are among the instruction verbs too")
    source = str(words["vocabulary"])
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
    """Return the result of ``read``; on a configuration error, append it to ``problems`` and return ``None``."""
    try:
        return read()
    except ConfigError as error:
        problems.append(f"words.{key}: {error}")
        return None
