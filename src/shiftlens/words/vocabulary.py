"""Reads, writes and ranks vocabularies: the whole words that describe concepts and word pairs."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float

from shiftlens.errors import ConfigError, Problem
from shiftlens.support.whole_files import write_text
from shiftlens.words.files import raise_problems, read_text

SIZE = 20_000
"""Number of words in the default vocabulary."""


@dataclass(frozen=True)
class Words:
    """Vocabulary, most frequent word first.

    Args:
        words: Words, without repetition.
        frequency: [words] frequency of each word, descending. Shares and counts both work, since only order and
            ratios are used.
    """

    words: tuple[str, ...]
    frequency: Float[np.ndarray, " words"]

    def __len__(self) -> int:
        return len(self.words)

    def first(self, count: int) -> Words:
        """Return the ``count`` most frequent words, or all words if there are fewer."""
        return Words(self.words[:count], self.frequency[:count])


def ranked(frequency: Mapping[str, float]) -> Words:
    """Sort words by frequency, highest first; words of equal frequency keep their order.

    Args:
        frequency: Word -> frequency.

    Example:
        >>> ranked({"cat": 0.1, "dog": 0.4, "eel": 0.1}).words
        ('dog', 'cat', 'eel')
    """
    words = sorted(frequency, key=lambda word: -frequency[word])
    return Words(tuple(words), np.array([frequency[word] for word in words], dtype=np.float64))


def is_word(token: str) -> bool:
    """Return whether a token is kept as a word: at least two letters and nothing else, or *a*, or *i*.

    This leaves out numbers, punctuation, emoji, contractions (*don't*), hyphenated words, and other single
    letters, which in frequency lists are mostly fragments of abbreviations.

    Example:
        >>> [token for token in ("write", "café", "a", "b", "don't", "2nd", "x_1") if is_word(token)]
        ['write', 'café', 'a']
    """
    return token.isalpha() and (len(token) > 1 or token in ("a", "i"))


def frequent_words(size: int = SIZE, include: Sequence[str] = ()) -> Words:
    """Return the most frequent English words in lower case; each inflected form (*writes*) is a word of its own.

    Args:
        size: Number of words; about 280,000 that pass :func:`is_word` are available.
        include: Words to include even if rarer; they replace the rarest others (*summarize*, for one, is not among
            the 20,000 most frequent words).

    Returns:
        The words with their share of running text, which the source rounds to steps of a hundredth of a decade.

    Raises:
        ConfigError: If ``size`` is below 1 or above the number of available words.

    Source:
        The package ``wordfreq`` (R. Speer): subtitles, Wikipedia, news, books, web text and forums.

    Example:
        >>> frequent_words(5).words
        ('the', 'to', 'and', 'of', 'a')
    """
    available = _english()
    if not 1 <= size <= len(available):
        raise ConfigError(f"words.size={size}: expected 1 to {len(available)}, the English words available")
    wanted = {*include} & {*available.words}
    others = (word for word in available.words if word not in wanted)
    kept = wanted | {*islice(others, max(size - len(wanted), 0))}
    rows = [row for row, word in enumerate(available.words) if word in kept]
    return Words(tuple(available.words[row] for row in rows), available.frequency[rows])


def read_words(path: str | Path, size: int | None = None) -> Words:
    r"""Read a vocabulary from a file with one word and its frequency per line.

    ``.csv`` files are comma-separated with the usual quotes; all other files have one tab per line and no quotes.
    A header ``word, frequency`` is skipped. Words are kept as written, with case and punctuation.

    Args:
        path: File to read, UTF-8.
        size: Number of words to keep, the most frequent first; ``None`` keeps all.

    Returns:
        The words and their frequencies, most frequent first.

    Raises:
        ConfigError: If the file is missing, is empty, or has faults; the message lists the faults.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.tsv"
        >>> _ = path.write_text("write\t0.25\nexplain\t0.5\n")
        >>> read_words(path).words
        ('explain', 'write')
    """
    path = Path(path).expanduser()
    text = read_text(path)
    problems: list[Problem] = []
    frequency: dict[str, float] = {}
    for number, fields in _records(text, path.suffix.lower() == ".csv", problems):
        if number == 1 and [field.strip().lower() for field in fields] == ["word", "frequency"]:
            continue
        if len(fields) != 2:
            problems.append(Problem(number, "", f"expected a word and its frequency, got {len(fields)} fields"))
            continue
        word, value = fields[0].strip(), _number(fields[1])
        if not word:
            problems.append(Problem(number, "word", "is empty"))
        elif word in frequency:
            problems.append(Problem(number, "word", f"{word!r} is listed twice"))
        if value is None:
            message = f"expected a number of 0 or more, got {fields[1].strip()!r}"
            problems.append(Problem(number, "frequency", message))
        frequency.setdefault(word, value or 0.0)
    if not frequency and not problems:
        problems.append(Problem(1, "", "there are no words"))
    raise_problems(path, problems, "Each line is a word, a tab (a comma in .csv files) and its frequency.")
    words = ranked(frequency)
    return words if size is None else words.first(size)


def write_words(words: Words, path: str | Path) -> None:
    """Write a vocabulary as tab-separated lines that :func:`read_words` reads back exactly.

    Args:
        words: Vocabulary to write.
        path: File to write; an existing file is replaced.
    """
    lines = (f"{word}\t{value!r}\n" for word, value in zip(words.words, words.frequency.tolist(), strict=True))
    write_text(Path(path).expanduser(), "".join(lines))


@cache
def _english() -> Words:
    """Return all English words that ``wordfreq`` knows and that pass :func:`is_word`."""
    from wordfreq import get_frequency_dict

    return ranked({word: share for word, share in get_frequency_dict("en").items() if is_word(word)})


def _records(text: str, comma: bool, problems: list[Problem]) -> Iterator[tuple[int, list[str]]]:
    """Yield number and fields of each line that is not blank; append invalid CSV to ``problems``."""
    # splitlines would also split at U+2028 and other characters that may occur in a word.
    lines = text.replace("\r\n", "\n").split("\n")
    if not comma:
        yield from ((number, line.split("\t")) for number, line in enumerate(lines, 1) if line.strip())
        return
    reader = csv.reader(lines)
    try:
        yield from ((reader.line_num, fields) for fields in reader if fields)
    except csv.Error as error:
        problems.append(Problem(reader.line_num, "", f"is not valid CSV: {error}"))


def _number(text: str) -> float | None:
    """Return the text as a finite number of at least 0, or ``None`` if it is not one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
