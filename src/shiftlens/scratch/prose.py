"""Extracts prose from docstrings and reStructuredText: whole sentences, without code, tables and markup."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

LEAST_WORDS = 6
"""Smallest number of words of a paragraph; a shorter one is usually a label."""
PLAIN_SHARE = 0.8
"""Smallest share of plain words in a paragraph; formulas and signatures have fewer."""

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

_ROLE = re.compile(r":[A-Za-z][\w:-]*:`~?([^`<]+?)(?:\s*<[^`>]*>)?`")  # :func:`name`, :ref:`text <target>`
_MARKUP = re.compile(r"``?([^`]+)``?_{0,2}")
_STRONG = re.compile(r"\*{1,2}(\S(?:[^*\n]*\S)?)\*{1,2}")
_NOTE = re.compile(r"\s?\[[\w#*]+\]_")  # [1]_, a footnote
_PLAIN = re.compile(r"[(\"']*[A-Za-z][a-z]*(?:['’-][A-Za-z]?[a-z]+)*[)\"'’]*[.,;:!?]?[)\"']*")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+")
_FIELD = re.compile(r"[\w*,.` ]+ ?: ?\S.*|[\w*]+ ?:?")  # `name : type` above an indented description


def docstrings(source: bytes) -> list[str]:
    r"""Return the docstrings of a Python file without running the file.

    Args:
        source: Content of the file.

    Returns:
        Docstrings of the module, its classes and functions, in the order of the file, with indentation removed;
        an empty list if the file is not valid Python.

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
    """Yield the nodes that may have a docstring, in the order of the file.

    For speed, only bodies of statements are searched, not expressions, which make up most of a tree.
    """
    if isinstance(tree, _Documented):
        yield tree
    for field in ("body", "orelse", "handlers", "finalbody"):
        for child in getattr(tree, field, ()):
            yield from _documented(child)


def prose(text: str) -> list[str]:
    """Return the paragraphs of a text that consist of whole English sentences.

    Args:
        text: Docstring or reStructuredText.

    Returns:
        Paragraphs in the order of the text, each on one line, with markup removed.

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
    """Yield the lines between two blank lines, without directives, literal blocks, doctests and headings."""
    # Indentation of the last directive or literal block; deeper blocks below it are its body.
    skip_below: int | None = None
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
            # A heading with its underline: the lines that follow in the same block are text.
            if len(bare) > 2 and _is_rule(bare[1]) and not any(_is_rule(line) for line in bare[2:]):
                lines = lines[2:]
                if any(line.strip().startswith((">>>", ".. ", "|", "+-", "@")) for line in lines):
                    continue
            else:
                continue
        yield lines


def _parts(lines: list[str]) -> Iterator[list[str]]:
    """Split a block of lines into paragraphs: one per list item, and parameter descriptions without the names."""
    paragraph: list[str] = []
    for number, line in enumerate(lines):
        last = number + 1 == len(lines)
        heads = not last and _indent(lines[number + 1]) > _indent(line) and bool(_FIELD.fullmatch(line.strip()))
        outdents = bool(paragraph) and _indent(line) < _indent(paragraph[-1])
        if heads or outdents or _ITEM.match(line):
            yield paragraph
            paragraph = []
        if not heads:
            paragraph.append(_ITEM.sub("", line, count=1))
    yield paragraph


def _flat(lines: list[str]) -> str:
    """Join lines into one, with markup and footnote references removed."""
    text = " ".join(" ".join(lines).split())
    text = _NOTE.sub("", _ROLE.sub(r"\1", text))
    return _STRONG.sub(r"\1", _MARKUP.sub(r"\1", text))


def _is_prose(text: str) -> bool:
    """Return whether a paragraph begins and ends like a sentence and consists mostly of plain words."""
    words = text.split(" ")
    if len(words) < LEAST_WORDS or not text[0].isupper() or text[-1] not in ".!?" or "http" in text:
        return False
    return sum(bool(_PLAIN.fullmatch(word)) for word in words) >= PLAIN_SHARE * len(words)


def _is_rule(line: str) -> bool:
    """Return whether a line consists of rule characters only, such as the underline of a heading."""
    return len(line) > 2 and not set(line) - set("=-~^*#_ ")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
