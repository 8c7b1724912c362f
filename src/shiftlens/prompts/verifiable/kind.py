"""A kind of task: templates for both halves, and a maker of its content, check and reference."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from shiftlens.prompts.verifiable.material import Material

T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """What one prompt is drawn from.

    Args:
        material: the material of the half.
        index: number of the prompt within its kind and half, from 0.
        shift: a number of the kind, so that kinds walk through the same material out of step.
        rng: a generator of this prompt's own.
    """

    material: Material
    index: int
    shift: int
    rng: random.Random

    def item(self, items: Sequence[T]) -> T:
        """The item for this prompt; no item comes twice in a kind before all have come."""
        return items[(self.index + self.shift) % len(items)]

    def group(self, count: int) -> list[str]:
        """``count`` different words of one category, in random order but not sorted."""
        _, words = self.item(self.material.groups)
        while (chosen := self.rng.sample(words, count)) == sorted(chosen):
            pass
        return chosen


@dataclass(frozen=True)
class Task:
    """The content of one prompt: what fills the template, the check, and a response that passes it."""

    slots: Mapping[str, str]
    check: Mapping[str, Any]
    reference: str


@dataclass(frozen=True)
class Kind:
    """A kind of task.

    Args:
        name: stable name, part of prompt ids.
        make: makes the content of one prompt.
        test: templates of the test half, see :func:`shiftlens.prompts.verifiable.pieces.pieces_of`.
        train: templates of the train half, worded differently.
    """

    name: str
    make: Callable[[Draw], Task]
    test: Sequence[str]
    train: Sequence[str]
