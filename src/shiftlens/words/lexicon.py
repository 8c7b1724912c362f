"""The word data of a run, as the configuration group ``words`` names it."""

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
from shiftlens.words.vectors import FREQUENT, Vectors, cooccurrence_threshold, load_vectors
from shiftlens.words.verbs import general_verbs, instruction_verbs, verb_indices
from shiftlens.words.vocabulary import SIZE, Words, frequent_words, read_words

T = TypeVar("T")


@dataclass(frozen=True)
class Lexicon:
    """A vocabulary with its verbs and its word vectors.

    Args:
        words: the vocabulary.
        instruction: instruction verb -> indices of the words that stand for it.
        general: general verb -> indices of the words that stand for it.
        vectors_source: ``glove`` or a file, read on first use.
        cache: folder for what is fetched.
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
    """Read the ``words`` group of the configuration.

    Args:
        words: keys ``vocabulary, size, vectors, instruction_verbs, general_verbs, inflections``, explained in
            ``conf/words/default.yaml``. A key that is missing has its value in that file.
        cache: folder for what is fetched.

    Raises:
        ConfigError: lists every key and every file that is wrong.

    Example:
        >>> from shiftlens.support.cache_path import cache_dir
        >>> lexicon = lexicon_from_config({"size": 1000}, cache_dir())
        >>> len(lexicon.words), lexicon.words.words[int(lexicon.instruction["summarize"][0])]
        (1000, 'summarize')
    """
    problems: list[str] = []
    words = with_defaults("words", "default", words)
    size, inflections = words["size"], words["inflections"]
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        problems.append(f"words.size must be a positive integer or null, got {size!r}")
        size = None
    if not isinstance(inflections, bool):
        problems.append(f"words.inflections must be true or false, got {inflections!r}")
    vectors = str(words["vectors"])
    if vectors != "glove" and not Path(vectors).expanduser().is_file():
        problems.append(f"words.vectors={vectors}: no such file; name a file of word vectors, or glove")
    lists = words["instruction_verbs"], words["general_verbs"]
    instruction = _try(problems, "instruction_verbs", lambda: instruction_verbs(lists[0])) or ()
    general = _try(problems, "general_verbs", lambda: general_verbs(lists[1])) or ()
    if both := [verb for verb in general if verb in instruction]:
        problems.append(f"words.general_verbs: {', '.join(both)} are among the instruction verbs too")
    source = str(words["vocabulary"])
    found = _try(problems, "vocabulary", lambda: _vocabulary(source, size, (*instruction, *general)))
    if problems or found is None:
        raise ConfigError("\n".join(problems))
    return Lexicon(
        found,
        verb_indices(instruction, found.words, inflections),
        verb_indices(general, found.words, inflections),
        vectors,
        Path(cache).expanduser(),
    )


def _vocabulary(source: str, size: int | None, include: Sequence[str]) -> Words:
    return frequent_words(size or SIZE, include) if source == "frequent" else read_words(source, size)


def _try(problems: list[str], key: str, read: Callable[[], T]) -> T | None:
    """What ``read`` returns; on an error ``None``, and one problem more."""
    try:
        return read()
    except ConfigError as error:
        problems.append(f"words.{key}: {error}")
        return None
