"""Defines a prompt: a text with instruction and context spans, and optionally a check of the response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Span = tuple[int, int]
"""Character offsets ``(start, end)`` into a prompt's text, end exclusive."""


@dataclass(frozen=True)
class Prompt:
    """One prompt with its spans and whatever else is known about it.

    Args:
        id: Name of the prompt, unique within its file.
        text: User's message, without chat template.
        instruction: Spans of ``text`` that say what to do, at least one.
        context: Spans of ``text`` with the material to work on; may be empty.
        dataset: Name of the data set; statistical tests are run for each data set.
        reference: Correct response, if known.
        response: Response to explain instead of a generated one, if given.
        rating: Human rating of ``response``, or of the tuned model's own response if none is given. From 2 on, the
            response follows the instruction; 1 means it does not; 0 and below mean not rated.
        check: Check that decides from a response alone whether it follows the instruction, as
            ``{"name": ..., **arguments}``; see :func:`shiftlens.prompts.verifiable.followed`.

    Example:
        >>> p = Prompt(id="a", text="Shout: hello", instruction=((0, 6),), context=((7, 12),))
        >>> p.text[slice(*p.context[0])]
        'hello'
    """

    id: str
    text: str
    instruction: tuple[Span, ...]
    context: tuple[Span, ...] = ()
    dataset: str = "prompts"
    reference: str | None = None
    response: str | None = None
    rating: int | None = None
    check: Mapping[str, Any] | None = None
