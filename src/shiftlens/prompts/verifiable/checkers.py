"""Implements the checks of responses: one function per check, which returns whether the response passes.

Every function takes a response that is not empty and has no white space at its ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

_QUOTES = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'"})
_NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]


def _tidy(text: str) -> str:
    """Replace white space by single spaces, and curly quotation marks by straight ones."""
    return " ".join(text.translate(_QUOTES).split())


def _plain(text: str) -> str:
    """Tidy a text, and remove a pair of quotation marks around it and a final full stop."""
    text = _tidy(text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text.removesuffix(".").rstrip()


def _bare(text: str) -> str:
    """Make a text plain and lower-case, for comparisons that ignore case."""
    return _plain(text).casefold()


def _words(text: str) -> list[str]:
    """Split a text into words: runs of letters and digits, with inner apostrophes and hyphens."""
    return re.findall(r"\w+(?:['-]\w+)*", _tidy(text))


def _mentioned(text: str, response: str) -> bool:
    """Return whether a response contains a text as whole words, ignoring case."""
    return re.search(rf"(?<!\w){re.escape(_bare(text))}(?!\w)", _tidy(response).casefold()) is not None


def equals(response: str, *, text: str, ignore_case: bool = False) -> bool:
    """Return whether the response is ``text``, ignoring quotation marks around it and a final full stop."""
    return _bare(response) == _bare(text) if ignore_case else _plain(response) == _plain(text)


def contains(response: str, *, text: str) -> bool:
    """Return whether the response contains ``text`` verbatim."""
    return _plain(text) in _tidy(response)


def mentions(response: str, *, texts: Sequence[str]) -> bool:
    """Return whether the response contains all ``texts`` as whole words, ignoring case."""
    return all(_mentioned(text, response) for text in texts)


def starts_with(response: str, *, text: str) -> bool:
    """Return whether the response begins with the words of ``text``, ignoring case and punctuation."""
    wanted = _words(text.casefold())
    return _words(response.casefold())[: len(wanted)] == wanted


def ends_with(response: str, *, text: str) -> bool:
    """Return whether the response ends with the words of ``text``, ignoring case and punctuation."""
    wanted = _words(text.casefold())
    return _words(response.casefold())[-len(wanted) :] == wanted


def uppercase(response: str) -> bool:
    """Return whether the response has letters and all are capitals."""
    return response.isupper()


def lowercase(response: str) -> bool:
    """Return whether the response has letters and none is a capital."""
    return response.islower()


def words(response: str, *, least: int, most: int) -> bool:
    """Return whether the response has at least ``least`` and at most ``most`` words."""
    return least <= len(_words(response)) <= most


def without(response: str, *, text: str) -> bool:
    """Return whether the response does not contain ``text``, not even inside a word or in another case."""
    return _bare(text) not in _tidy(response).casefold()


def _marked(response: str, mark: str) -> list[tuple[str, str]] | None:
    """Read the lines of a list.

    One line before the list is allowed if it ends with a colon: the response still has "exactly three bullets".

    Args:
        response: Response that should be a list.
        mark: Regular expression of the mark that starts a line.

    Returns:
        Mark and text of each line, or ``None`` if a line has no mark or no text.
    """
    lines = [line.strip() for line in response.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":") and not re.match(mark, lines[0]):
        lines = lines[1:]
    matches = [re.fullmatch(rf"({mark})\s*(\S.*)", line) for line in lines]
    return None if None in matches else [(match[1], match[2]) for match in matches if match]


def _same(texts: Sequence[str], items: Sequence[str] | None) -> bool:
    """Return whether texts equal the items in their order, ignoring case; true if no items are given."""
    return items is None or [_bare(text) for text in texts] == [_bare(item) for item in items]


def bullets(response: str, *, count: int, items: Sequence[str] | None = None) -> bool:
    """Return whether the response is a list of ``count`` bullets, with ``items`` in this order if given."""
    lines = _marked(response, r"[-*•](?=\s)")
    return lines is not None and len(lines) == count and _same([text for _, text in lines], items)


def numbered(response: str, *, count: int, items: Sequence[str] | None = None) -> bool:
    """Return whether the response is a list numbered 1 to ``count``, with ``items`` in this order if given."""
    lines = _marked(response, r"\d+[.):]")
    if lines is None or [int(mark[:-1]) for mark, _ in lines] != list(range(1, count + 1)):
        return False
    return _same([text for _, text in lines], items)


def separated(response: str, *, by: str, items: Sequence[str]) -> bool:
    """Return whether the response is one line of exactly ``items`` in this order, separated by ``by``."""
    return "\n" not in response and _same([text.strip() for text in _plain(response).split(by)], items)


def order(response: str, *, items: Sequence[str]) -> bool:
    """Return whether the response has only the words of ``items``, in order; signs and digits are ignored."""
    response_words = re.findall(r"[^\W\d_]+", response.casefold())
    return response_words == re.findall(r"[^\W\d_]+", " ".join(items).casefold())


def json_object(response: str, *, keys: Sequence[str], values: Mapping[str, str] | None = None) -> bool:
    """Return whether the response is a JSON object with exactly ``keys``, and ``values`` if given.

    The object may be inside a code fence; values are compared as text, ignoring case.
    """
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", response, re.DOTALL)
    try:
        parsed = json.loads(fenced[1] if fenced else response)
    except (ValueError, RecursionError):
        return False
    if not isinstance(parsed, dict) or set(parsed) != set(keys):
        return False
    return all(_bare(str(parsed.get(key))) == _bare(value) for key, value in (values or {}).items())


def number(response: str, *, value: int) -> bool:
    """Return whether the response contains ``value`` and no other number.

    Numbers may be written in digits or, up to twelve, as words. "one" counts only if ``value`` is 1, because "one"
    is also a pronoun.
    """
    numbers = set()
    for word in re.findall(r"\d+|[a-z]+", response.casefold()):
        if word.isdecimal():
            numbers.add(int(word))
        elif word in _NUMBERS and (word != "one" or value == 1):
            numbers.add(_NUMBERS.index(word))
    return numbers == {value}


def choice(response: str, *, letter: str, others: Sequence[str]) -> bool:
    """Return whether the response chooses the option ``letter`` and contains none of the ``others``.

    The letter comes first, or after words such as "the answer is".
    """
    lead = r"(?:(?:the )?(?:correct |right )?(?:answer|option|choice)(?: is)?\s*:?\s*)?"
    chosen = re.match(rf"{lead}[\"'(\[]?{re.escape(letter)}(?!\w)(?!')", _tidy(response), re.IGNORECASE)
    return chosen is not None and not any(_mentioned(other, response) for other in others)


def enclosed(response: str, *, left: str, right: str, text: str | None = None) -> bool:
    """Return whether the response is enclosed between ``left`` and ``right``, with ``text`` inside if given."""
    whole = response.removesuffix(".")
    if len(whole) <= len(left) + len(right) or not (whole.startswith(left) and whole.endswith(right)):
        return False
    inside = whole[len(left) : len(whole) - len(right)]
    return bool(inside.strip()) and (text is None or _plain(inside) == _plain(text))
