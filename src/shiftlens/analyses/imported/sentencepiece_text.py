"""Converts SentencePiece pieces to text: ``▁`` is a space, ``<0x0A>`` a byte."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from shiftlens.prompts.schema import Prompt, Span

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def piece_bytes(piece: str) -> bytes:
    r"""Return the bytes that a piece stands for.

    Example:
        >>> piece_bytes("▁a"), piece_bytes("<0x0A>")
        (b' a', b'\n')
    """
    byte = _BYTE.fullmatch(piece)
    return bytes.fromhex(byte[1]) if byte else piece.replace("▁", " ").encode()


def shown(pieces: Sequence[str]) -> list[str]:
    r"""Return each piece as readable text; a byte that is part of a character becomes the replacement character.

    Example:
        >>> shown(["▁a", "<0x0A>", "<0xE2>"])
        [' a', '\n', '�']
    """
    return [piece_bytes(piece).decode(errors="replace") for piece in pieces]


def pieces_text(pieces: Sequence[str]) -> str:
    """Join pieces to one text, without the space that SentencePiece adds at the beginning of a text.

    Example:
        >>> pieces_text(["▁a", "▁caf", "<0xC3>", "<0xA9>"])
        'a café'
    """
    text = b"".join(map(piece_bytes, pieces)).decode(errors="replace")
    return text.removeprefix(" ") if pieces and pieces[0].startswith("▁") else text


def span_masks(prompt: Prompt, pieces: Sequence[str]) -> tuple[Bool[np.ndarray, " _"], Bool[np.ndarray, " _"]]:
    """Compute masks of the pieces that overlap the instruction and the context of a prompt.

    Args:
        prompt: Prompt with its text and spans.
        pieces: [prompt] pieces that spell the prompt's text; white space at both ends may be missing.

    Returns:
        [prompt] instruction mask and context mask.

    Raises:
        ValueError: The pieces do not spell the text.

    Example:
        >>> prompt = Prompt("a", "Shout: hé", ((0, 5),), ((7, 9),))
        >>> [mask.tolist() for mask in span_masks(prompt, ["▁Sh", "out", ":", "▁h", "<0xC3>", "<0xA9>"])]
        [[True, True, False, False, False, False], [False, False, False, True, True, True]]
    """
    raw = [piece_bytes(piece) for piece in pieces]
    text = b"".join(raw).decode(errors="replace")
    trimmed = len(prompt.text) - len(prompt.text.lstrip())
    offsets = {
        before + kept: len(before) - cut
        for kept, cut in ((prompt.text, 0), (prompt.text.strip(), trimmed))
        for before in ("", " ")
    }
    if text not in offsets:
        at = next(
            (i for i, (a, b) in enumerate(zip(text.lstrip(), prompt.text.lstrip(), strict=False)) if a != b), None
        )
        where = "one is longer" if at is None else f"from character {at}: {text.lstrip()[at : at + 20]!r}"
        raise ValueError(f"its tokens do not spell the text of prompt {prompt.id!r} ({where})")
    # A piece that is one byte of a character counts as the whole character.
    of_byte = np.repeat(np.arange(len(text)), [len(letter.encode()) for letter in text])
    ends = np.cumsum([len(piece) for piece in raw])
    first = of_byte[ends - [len(piece) for piece in raw]]
    last = of_byte[ends - 1]

    def mask(spans: Sequence[Span]) -> Bool[np.ndarray, " _"]:
        touched = np.zeros(len(pieces), bool)
        for start, end in spans:
            touched |= (first < end + offsets[text]) & (last >= start + offsets[text])
        return touched

    return mask(prompt.instruction), mask(prompt.context)
