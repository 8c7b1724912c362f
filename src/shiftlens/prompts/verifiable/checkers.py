"""The single checks: each looks at a response (not empty, outer whitespace removed) and answers yes or no."""

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
    """One space between words, straight quotation marks."""
    return " ".join(text.translate(_QUOTES).split())


def _plain(text: str) -> str:
    """Tidy, and without a pair of quotation marks around it or a final full stop."""
    text = _tidy(text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text.removesuffix(".").rstrip()


def _bare(text: str) -> str:
    return _plain(text).casefold()


def _words(text: str) -> list[str]:
    """Words in the plain sense: runs of letters and digits, with inner apostrophes and hyphens."""
    return re.findall(r"\w+(?:['-]\w+)*", _tidy(text))


def _mentioned(text: str, response: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(_bare(text))}(?!\w)", _tidy(response).casefold()) is not None


def equals(response: str, *, text: str, ignore_case: bool = False) -> bool:
    """The response is ``text``; quotation marks around it and a final full stop do not count."""
    return _bare(response) == _bare(text) if ignore_case else _plain(response) == _plain(text)


def contains(response: str, *, text: str) -> bool:
    """``text`` stands in the response word for word."""
    return _plain(text) in _tidy(response)


def mentions(response: str, *, texts: Sequence[str]) -> bool:
    """Every one of ``texts`` stands in the response as whole words, in any case."""
    return all(_mentioned(text, response) for text in texts)


def starts_with(response: str, *, text: str) -> bool:
    """The response begins with the words of ``text``, in any case and punctuation."""
    wanted = _words(text.casefold())
    return _words(response.casefold())[: len(wanted)] == wanted


def ends_with(response: str, *, text: str) -> bool:
    """The response ends with the words of ``text``, in any case and punctuation."""
    wanted = _words(text.casefold())
    return _words(response.casefold())[-len(wanted) :] == wanted


def uppercase(response: str) -> bool:
    """Every letter is a capital, and there is one."""
    return response.isupper()


def lowercase(response: str) -> bool:
    """No letter is a capital, and there is a letter."""
    return response.islower()


def words(response: str, *, least: int, most: int) -> bool:
    """The response has at least ``least`` and at most ``most`` words."""
    return least <= len(_words(response)) <= most


def without(response: str, *, text: str) -> bool:
    """``text`` stands nowhere in the response, in no case."""
    return _bare(text) not in _tidy(response).casefold()


def _marked(response: str, mark: str) -> list[tuple[str, str]] | None:
    """Mark and text of each line of a list, ``None`` if another line is there.

    One line before the list that ends with a colon is let pass: "exactly three bullets" still holds.
    """
    lines = [line.strip() for line in response.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":") and not re.match(mark, lines[0]):
        lines = lines[1:]
    found = [re.fullmatch(rf"({mark})\s*(\S.*)", line) for line in lines]
    return None if None in found else [(match[1], match[2]) for match in found if match]


def _same(ours: Sequence[str], items: Sequence[str] | None) -> bool:
    return items is None or [_bare(item) for item in ours] == [_bare(item) for item in items]


def bullets(response: str, *, count: int, items: Sequence[str] | None = None) -> bool:
    """Exactly ``count`` bullets, and these ``items`` in this order if given."""
    lines = _marked(response, r"[-*•](?=\s)")
    return lines is not None and len(lines) == count and _same([text for _, text in lines], items)


def numbered(response: str, *, count: int, items: Sequence[str] | None = None) -> bool:
    """A list numbered 1 to ``count``, and these ``items`` in this order if given."""
    lines = _marked(response, r"\d+[.):]")
    if lines is None or [int(mark[:-1]) for mark, _ in lines] != list(range(1, count + 1)):
        return False
    return _same([text for _, text in lines], items)


def separated(response: str, *, by: str, items: Sequence[str]) -> bool:
    """Exactly ``items`` in one line, with the sign ``by`` between them."""
    return "\n" not in response and _same([part.strip() for part in _plain(response).split(by)], items)


def order(response: str, *, items: Sequence[str]) -> bool:
    """The words of ``items`` in this order and no other word; signs and list numbers do not count."""
    ours = re.findall(r"[^\W\d_]+", response.casefold())
    return ours == re.findall(r"[^\W\d_]+", " ".join(items).casefold())


def json_object(response: str, *, keys: Sequence[str], values: Mapping[str, str] | None = None) -> bool:
    """A JSON object with exactly ``keys``, and these ``values`` if given; a code fence is let pass."""
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", response, re.DOTALL)
    try:
        found = json.loads(fenced[1] if fenced else response)
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, dict) or set(found) != set(keys):
        return False
    return all(_bare(str(found.get(key))) == _bare(value) for key, value in (values or {}).items())


def number(response: str, *, value: int) -> bool:
    """The response says ``value``, in digits or as a word up to twelve, and no other number.

    "one" is read as a number only when one is asked for, since it is also a pronoun.
    """
    said = set()
    for word in re.findall(r"\d+|[a-z]+", response.casefold()):
        if word.isdecimal():
            said.add(int(word))
        elif word in _NUMBERS and (word != "one" or value == 1):
            said.add(_NUMBERS.index(word))
    return said == {value}


def choice(response: str, *, letter: str, others: Sequence[str]) -> bool:
    """The option ``letter`` is chosen, perhaps after "the answer is", and none of the ``others`` is named."""
    lead = r"(?:(?:the )?(?:correct |right )?(?:answer|option|choice)(?: is)?\s*:?\s*)?"
    chosen = re.match(rf"{lead}[\"'(\[]?{re.escape(letter)}(?!\w)(?!')", _tidy(response), re.IGNORECASE)
    return chosen is not None and not any(_mentioned(other, response) for other in others)


def enclosed(response: str, *, left: str, right: str, text: str | None = None) -> bool:
    """The response stands between ``left`` and ``right``, with ``text`` inside if given."""
    whole = response.removesuffix(".")
    if len(whole) <= len(left) + len(right) or not (whole.startswith(left) and whole.endswith(right)):
        return False
    inside = whole[len(left) : len(whole) - len(right)]
    return bool(inside.strip()) and (text is None or _plain(inside) == _plain(text))
