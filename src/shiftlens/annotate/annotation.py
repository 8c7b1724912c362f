"""Defines concepts, annotations, and the interface of annotators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from shiftlens.errors import ShiftLensError

LEVELS = ("phonology", "morphology", "syntax", "semantics")
"""Linguistic levels, from sound to meaning (paper, section 4.2)."""

TASKS = ("writing", "math", "coding", "translation", "none")
"""Tasks that a concept can serve (the paper's list); ``none``: a described concept that serves no task."""


@dataclass(frozen=True)
class Concept:
    """One concept: the words whose output embeddings are closest to a principal component.

    Args:
        words: Words of the concept, closest first; the paper shows 30 of 50.
    """

    words: tuple[str, ...]


@dataclass(frozen=True)
class Annotation:
    """Result of annotating a concept; a description of ``None`` means "cannot tell".

    Args:
        description: Description in one line.
        level: Linguistic level, one of :data:`LEVELS`; ``None`` if there is no description.
        task: Task, one of :data:`TASKS`; ``None`` if there is no description.
        p: Probability that a random list is as extreme, corrected for everything tried; ``None`` if the annotator
            computes no test.
        words: Words that the description is based on, if known.
        note: Reason for a missing description, if the cause is a failure and not the annotator's own judgement.

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
        """Whether the concept has a description."""
        return self.description is not None


CANNOT_TELL = Annotation(None, None, None)
"""Annotation of a concept that could not be described."""


@runtime_checkable
class Annotator(Protocol):
    """Interface of annotators: anything with a name that describes concepts."""

    name: str

    def annotate(self, concepts: Sequence[Concept]) -> list[Annotation]:
        """Return one annotation per concept, in the same order."""
        ...


class AnnotationStoppedError(ShiftLensError):
    """Raised when annotation ends early because a budget is spent or a service fails.

    Args:
        reason: Why annotation ended, and how to continue.
        done: Index in the list of concepts -> annotation, for every finished concept.
    """

    def __init__(self, reason: str, done: Mapping[int, Annotation]) -> None:
        super().__init__(reason)
        self.done = dict(done)
