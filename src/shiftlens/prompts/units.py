"""Divides the tokens of a prompt into words, sentences or regions."""

from __future__ import annotations

import re
from bisect import bisect_right

from shiftlens.prompts.encode import Encoded

UNITS = ("word", "sentence", "region")
"""What a prompt can be divided into, beside its tokens."""
_WORD = re.compile(r"\S+")
_SENTENCE = re.compile(r"[^\S\n]*\S.*?(?:[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s|$)|[\u3002\uff01\uff1f]|(?=\n)|$)")


def unit_of_tokens(encoded: Encoded, name: str) -> tuple[int, ...]:
    """Number the unit of each token of a prompt; units are numbered as they come, from 0.

    A token belongs to the unit of its first character that is not a space; a token of spaces alone belongs to the
    unit before it (at the start, to the first). A sentence ends at its closing mark, or where the line ends.

    Args:
        encoded: The prompt as fed.
        name: One of :data:`UNITS`; a region is all tokens of the instruction, of the context, or of neither.

    Returns:
        [N] number of each token's unit.
    """
    if name == "region":
        keys: list[object] = list(encoded.regions)
    else:
        pattern, text = (_WORD if name == "word" else _SENTENCE), encoded.prompt.text
        starts = [match.start() for match in pattern.finditer(text)]
        keys, last = [], 1
        for start, end in encoded.offsets:
            first = next((place for place in range(start, end) if not text[place].isspace()), None)
            if first is not None:
                last = bisect_right(starts, first)
            keys.append(last)
    numbers: dict[object, int] = {}
    return tuple(numbers.setdefault(key, len(numbers)) for key in keys)
