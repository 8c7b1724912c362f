"""What a prompt is: a text with known instruction and context spans, and perhaps a way to judge a response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Span = tuple[int, int]
"""Character offsets ``(start, end)`` into a prompt's text, end exclusive."""


@dataclass(frozen=True)
class Prompt:
    """One prompt and what is known about it.

    Args:
        id: unique within its file.
        text: what the user says, before any chat template.
        instruction: spans of ``text`` that say what to do; at least one.
        context: spans of ``text`` that are material to work on; may be empty.
        dataset: name of the data set, the unit over which tests are run.
        reference: an answer a person would accept, if known.
        response: a response to explain instead of the model's own, if given.
        rating: a human rating of the given response, or else of the tuned model's own, if known: 2 and
            above is followed, 1 is not, 0 and below is not rated.
        check: how to decide from a response alone whether it follows the instruction, as
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
