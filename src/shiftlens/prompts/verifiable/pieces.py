"""Prompts put together from typed pieces, so that spans are exact by construction and never searched for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from shiftlens.prompts.schema import Span

Region = Literal["instruction", "context", "other"]

_TOKEN = re.compile(r"(?P<mark>[<>])|\{(?P<slot>\w+)\}|(?P<words>[^<>{}]+)")


@dataclass(frozen=True)
class Piece:
    """A stretch of a prompt's text and the region it belongs to."""

    text: str
    region: Region


def pieces_of(template: str, slots: Mapping[str, str]) -> Iterator[Piece]:
    """Read a template: ``<...>`` is instruction, ``{slot}`` outside of it is context, the rest is other.

    A ``{slot}`` inside ``<...>`` is part of the instruction. What fills a slot is taken as it is:
    marks inside it mean nothing.

    Args:
        template: the template.
        slots: what fills each slot of the template.

    Yields:
        The pieces, in order.

    Example:
        >>> for piece in pieces_of("<Say {word} for:> {text}", {"word": "hi", "text": "a<b"}):
        ...     print(piece.region, repr(piece.text))
        instruction 'Say '
        instruction 'hi'
        instruction ' for:'
        other ' '
        context 'a<b'
    """
    inside = False
    for token in _TOKEN.finditer(template):
        if token["mark"]:
            inside = token["mark"] == "<"
        elif token["slot"]:
            yield Piece(slots[token["slot"]], "instruction" if inside else "context")
        else:
            yield Piece(token["words"], "instruction" if inside else "other")


def assemble(pieces: Iterable[Piece]) -> tuple[str, tuple[Span, ...], tuple[Span, ...]]:
    """Join pieces; neighbours of one region make one span.

    Returns:
        The text, its instruction spans and its context spans, in character offsets.

    Example:
        >>> assemble([Piece("Shout:", "instruction"), Piece(" ", "other"), Piece("hello", "context")])
        ('Shout: hello', ((0, 6),), ((7, 12),))
    """
    text = ""
    spans: dict[Region, list[Span]] = {"instruction": [], "context": [], "other": []}
    for piece in pieces:
        start, text = len(text), text + piece.text
        own = spans[piece.region]
        if own and own[-1][1] == start:
            own[-1] = (own[-1][0], len(text))
        else:
            own.append((start, len(text)))
    return text, tuple(spans["instruction"]), tuple(spans["context"])
