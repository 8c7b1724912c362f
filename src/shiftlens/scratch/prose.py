"""The prose in a docstring or a reStructuredText file: whole sentences, without code, tables and markup."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

LEAST_WORDS = 6
"""A paragraph of fewer words is a label, not prose."""
PLAIN_SHARE = 0.8
"""Share of a paragraph's words that must be plain words; formulas and signatures have fewer."""

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

_ROLE = re.compile(r":[A-Za-z][\w:-]*:`~?([^`<]+?)(?:\s*<[^`>]*>)?`")  # :func:`name`, :ref:`text <target>`
_MARKUP = re.compile(r"``?([^`]+)``?_{0,2}")
_STRONG = re.compile(r"\*{1,2}(\S(?:[^*\n]*\S)?)\*{1,2}")
_NOTE = re.compile(r"\s?\[[\w#*]+\]_")  # [1]_, a footnote
_PLAIN = re.compile(r"[(\"']*[A-Za-z][a-z]*(?:['’-][A-Za-z]?[a-z]+)*[)\"'’]*[.,;:!?]?[)\"']*")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+")
_FIELD = re.compile(r"[\w*,.` ]+ ?: ?\S.*|[\w*]+ ?:?")  # `name : type` above an indented description


def docstrings(source: bytes) -> list[str]:
    r"""The docstrings of a Python file, read without running it.

    Args:
        source: the file's bytes.

    Returns:
        Docstrings of the module, its classes and functions, in the order of the file, indentation removed;
        none if the file is not valid Python.

    Example:
        >>> docstrings(b'def f():\n    "Adds one."')
        ['Adds one.']
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    return [text for node in _documented(tree) if (text := ast.get_docstring(node))]


def _documented(tree: ast.AST) -> Iterator[_Documented]:
    """What may have a docstring, in the order of the file; expressions, most of a tree, are not entered."""
    if isinstance(tree, _Documented):
        yield tree
    for field in ("body", "orelse", "handlers", "finalbody"):
        for child in getattr(tree, field, ()):
            yield from _documented(child)


def prose(text: str) -> list[str]:
    """The paragraphs of a text that are whole English sentences.

    Args:
        text: a docstring or reStructuredText.

    Returns:
        Paragraphs in their order, each on one line, markup removed.

    Example:
        >>> prose('''Return the mean of the values.
        ...
        ... Parameters
        ... ----------
        ... x : array
        ...     The values of which the mean is taken.
        ...
        ... >>> mean([1, 2])
        ... ''')
        ['Return the mean of the values.', 'The values of which the mean is taken.']
    """
    return [line for block in _blocks(text) for part in _parts(block) if _is_prose(line := _flat(part))]


def _blocks(text: str) -> Iterator[list[str]]:
    """Runs of lines without a blank line; directives, doctests and headings left out."""
    skip_below: int | None = None  # the body of a directive or of a literal block is what is indented below it
    for raw in re.split(r"\n\s*\n", text.expandtabs()):
        lines = [line.rstrip() for line in raw.split("\n") if line.strip()]
        if not lines:
            continue
        indent = _indent(lines[0])
        if skip_below is not None and indent > skip_below:
            continue
        skip_below = indent if lines[0].lstrip().startswith(".. ") or lines[-1].endswith("::") else None
        bare = [line.strip() for line in lines]
        if any(line.startswith((">>>", ".. ", "|", "+-", "@")) or _is_rule(line) for line in bare):
            # A rule under a heading: what follows it in the same run is text again.
            if len(bare) > 2 and _is_rule(bare[1]) and not any(_is_rule(line) for line in bare[2:]):
                lines = lines[2:]
                if any(line.strip().startswith((">>>", ".. ", "|", "+-", "@")) for line in lines):
                    continue
            else:
                continue
        yield lines


def _parts(lines: list[str]) -> Iterator[list[str]]:
    """A run of lines as paragraphs: list items apart, a description apart from the parameter it belongs to."""
    part: list[str] = []
    for number, line in enumerate(lines):
        last = number + 1 == len(lines)
        heads = not last and _indent(lines[number + 1]) > _indent(line) and bool(_FIELD.fullmatch(line.strip()))
        outdents = bool(part) and _indent(line) < _indent(part[-1])
        if heads or outdents or _ITEM.match(line):
            yield part
            part = []
        if not heads:
            part.append(_ITEM.sub("", line, count=1))
    yield part


def _flat(lines: list[str]) -> str:
    text = " ".join(" ".join(lines).split())
    text = _NOTE.sub("", _ROLE.sub(r"\1", text))
    return _STRONG.sub(r"\1", _MARKUP.sub(r"\1", text))


def _is_prose(text: str) -> bool:
    words = text.split(" ")
    if len(words) < LEAST_WORDS or not text[0].isupper() or text[-1] not in ".!?" or "http" in text:
        return False
    return sum(bool(_PLAIN.fullmatch(word)) for word in words) >= PLAIN_SHARE * len(words)


def _is_rule(line: str) -> bool:
    return len(line) > 2 and not set(line) - set("=-~^*#_ ")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
