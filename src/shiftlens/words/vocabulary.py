"""The words in which concepts and word pairs are named: whole words, most frequent first."""

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
"""Words of the default vocabulary."""


@dataclass(frozen=True)
class Words:
    """A vocabulary, most frequent word first.

    Args:
        words: the words, without repetition.
        frequency: [words] how common each is, descending; shares or counts, only their order and ratios are used.
    """

    words: tuple[str, ...]
    frequency: Float[np.ndarray, " words"]

    def __len__(self) -> int:
        return len(self.words)

    def first(self, count: int) -> Words:
        """The ``count`` most frequent words, or all where there are fewer."""
        return Words(self.words[:count], self.frequency[:count])


def ranked(frequency: Mapping[str, float]) -> Words:
    """A vocabulary out of word -> frequency; equally frequent words keep their order.

    Example:
        >>> ranked({"cat": 0.1, "dog": 0.4, "eel": 0.1}).words
        ('dog', 'cat', 'eel')
    """
    words = sorted(frequency, key=lambda word: -frequency[word])
    return Words(tuple(words), np.array([frequency[word] for word in words], dtype=np.float64))


def is_word(token: str) -> bool:
    """Whether a token is kept as a word: letters only, and more than one, but for *a* and *i*.

    Numbers, punctuation, emoji, contractions (*don't*) and hyphenated words are left out, and so are
    single letters, which in frequency lists are mostly pieces of abbreviations.

    Example:
        >>> [token for token in ("write", "café", "a", "b", "don't", "2nd", "x_1") if is_word(token)]
        ['write', 'café', 'a']
    """
    return token.isalpha() and (len(token) > 1 or token in ("a", "i"))


def frequent_words(size: int = SIZE, include: Sequence[str] = ()) -> Words:
    """The most frequent English words, in lower case and as written (*writes* beside *write*).

    Args:
        size: number of words that pass :func:`is_word`; about 280,000 are to be had.
        include: words to be among them though they be rarer, in place of the rarest others. *Summarize* is not
            one of the 20,000 most frequent words, and is wanted all the same.

    Returns:
        The words with their share of running text, which the source rounds to steps of a hundredth of
        a decade.

    Raises:
        ConfigError: ``size`` is below 1 or more than there are.

    Source:
        The package ``wordfreq`` (R. Speer): subtitles, Wikipedia, news, books, web text and forums.

    Example:
        >>> frequent_words(5).words
        ('the', 'to', 'and', 'of', 'a')
    """
    found = _english()
    if not 1 <= size <= len(found):
        raise ConfigError(f"words.size={size}: expected 1 to {len(found)}, the English words there are")
    wanted = {*include} & {*found.words}
    others = (word for word in found.words if word not in wanted)
    kept = wanted | {*islice(others, max(size - len(wanted), 0))}
    rows = [row for row, word in enumerate(found.words) if word in kept]
    return Words(tuple(found.words[row] for row in rows), found.frequency[rows])


def read_words(path: str | Path, size: int | None = None) -> Words:
    r"""A vocabulary from a file: one word and its frequency per line.

    ``.csv`` files are comma-separated with the usual quotes; all others have one tab and no quoting. A first
    line ``word, frequency`` is skipped. Words are kept as they are: their case, and punctuation if listed.

    Args:
        path: the file, UTF-8.
        size: keep only the most frequent ``size`` words; ``None``: all.

    Raises:
        ConfigError: the file is not there, is empty, or has faults; all faults are listed.

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
            problems.append(Problem(number, "word", f"{word!r} is listed before"))
        if value is None:
            message = f"expected a number of 0 or more, got {fields[1].strip()!r}"
            problems.append(Problem(number, "frequency", message))
        frequency.setdefault(word, value or 0.0)
    if not frequency and not problems:
        problems.append(Problem(1, "", "there are no words"))
    raise_problems(path, problems, "Each line is a word, a tab (a comma in .csv files) and its frequency.")
    found = ranked(frequency)
    return found if size is None else found.first(size)


def write_words(words: Words, path: str | Path) -> None:
    """Writes a vocabulary as tab-separated lines that :func:`read_words` reads back exactly."""
    lines = (f"{word}\t{value!r}\n" for word, value in zip(words.words, words.frequency.tolist(), strict=True))
    write_text(Path(path).expanduser(), "".join(lines))


@cache
def _english() -> Words:
    from wordfreq import get_frequency_dict

    return ranked({word: share for word, share in get_frequency_dict("en").items() if is_word(word)})


def _records(text: str, comma: bool, problems: list[Problem]) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of the lines that are not blank."""
    # Not splitlines: a word may hold U+2028 and other characters that count as line ends there.
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
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
