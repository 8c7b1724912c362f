"""What is annotated, what an annotation says, and what every annotator must do (METHOD, concepts)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from shiftlens.errors import ShiftLensError

LEVELS = ("phonology", "morphology", "syntax", "semantics")
"""Linguistic levels, from sound to meaning (paper, section 4.2)."""

TASKS = ("writing", "math", "coding", "translation", "none")
"""What a concept could serve, by the paper's list; ``none`` is a concept that can be told but serves none."""


@dataclass(frozen=True)
class Concept:
    """One concept: the words whose output embeddings lie closest to a principal component.

    Args:
        words: the words, closest first; the paper shows 30 of 50.
    """

    words: tuple[str, ...]


@dataclass(frozen=True)
class Annotation:
    """What an annotator says of a concept; ``None`` is "cannot tell".

    Args:
        description: one line.
        level: one of :data:`LEVELS`.
        task: one of :data:`TASKS`; ``None`` where there is no description.
        p: chance of such a list among random ones, corrected for everything tried; ``None`` if not a test.
        words: the words that the description rests on, where known.
        note: why there is no description, where that is not the annotator's own judgement.

    Example:
        >>> Annotation("words ending in -ing", "morphology", "none").told
        True
        >>> CANNOT_TELL.told
        False
    """

    description: str | None
    level: str | None
    task: str | None
    p: float | None = None
    words: tuple[str, ...] = ()
    note: str = ""

    @property
    def told(self) -> bool:
        """Whether the concept could be described."""
        return self.description is not None


CANNOT_TELL = Annotation(None, None, None)


@runtime_checkable
class Annotator(Protocol):
    """Anything that says what concepts are about."""

    name: str

    def annotate(self, concepts: Sequence[Concept]) -> list[Annotation]:
        """One annotation per concept, in order."""
        ...


class AnnotationStoppedError(ShiftLensError):
    """Annotation ended early: a budget was spent or a service failed.

    Args:
        reason: what ended it and how to go on.
        done: position in the list asked for -> its annotation, for all that were finished.
    """

    def __init__(self, reason: str, done: Mapping[int, Annotation]) -> None:
        super().__init__(reason)
        self.done = dict(done)
