"""Assembles prompts from pieces of known region, so that spans are exact and need not be searched for."""

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
    """Piece of a prompt's text, and the region that it belongs to."""

    text: str
    region: Region


def pieces_of(template: str, slots: Mapping[str, str]) -> Iterator[Piece]:
    """Split a filled template into pieces.

    ``<...>`` is instruction, ``{slot}`` outside of it is context, and the rest is other. A ``{slot}`` inside
    ``<...>`` is part of the instruction. Marks inside the text of a slot have no meaning.

    Args:
        template: Template with marks and slots.
        slots: Text for each slot, by name.

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
    """Join pieces into a text; adjacent pieces of one region become one span.

    Args:
        pieces: Pieces, in order.

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
        region_spans = spans[piece.region]
        if region_spans and region_spans[-1][1] == start:
            region_spans[-1] = (region_spans[-1][0], len(text))
        else:
            region_spans.append((start, len(text)))
    return text, tuple(spans["instruction"]), tuple(spans["context"])
