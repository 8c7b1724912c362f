"""Defines a kind of task: its templates, and the function that makes content, check and reference of a prompt."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from shiftlens.prompts.verifiable.material import Material

T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """Material and random numbers from which one prompt is made.

    Args:
        material: Material of the half.
        index: Number of the prompt within its kind and half, from 0.
        shift: Offset into the material, one per kind, so that different kinds start at different items.
        rng: Random generator of this prompt.
    """

    material: Material
    index: int
    shift: int
    rng: random.Random

    def item(self, items: Sequence[T]) -> T:
        """Return the item for this prompt; within a kind, items repeat only after all have been used."""
        return items[(self.index + self.shift) % len(items)]

    def group(self, count: int) -> list[str]:
        """Draw ``count`` different words of one category, in random but never alphabetical order."""
        _, words = self.item(self.material.groups)
        while (chosen := self.rng.sample(words, count)) == sorted(chosen):
            pass
        return chosen


@dataclass(frozen=True)
class Task:
    """Content of one prompt.

    Args:
        slots: Text for each slot of the template, by name.
        check: Check of the response, see :func:`shiftlens.prompts.verifiable.checks.followed`.
        reference: Response that passes the check.
    """

    slots: Mapping[str, str]
    check: Mapping[str, Any]
    reference: str


@dataclass(frozen=True)
class Kind:
    """Kind of task.

    Args:
        name: Stable name; it is part of the ids of prompts.
        make: Function that makes the content of one prompt.
        test: Templates of the test half, see :func:`shiftlens.prompts.verifiable.pieces.pieces_of`.
        train: Templates of the train half, with other wording.
    """

    name: str
    make: Callable[[Draw], Task]
    test: Sequence[str]
    train: Sequence[str]
