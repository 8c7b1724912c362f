"""Batches of token ids, padded or packed, and the loaders that hand them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from shiftlens.tuning.examples import Example
from shiftlens.tuning.plan import Step


@dataclass
class Batch:
    """What one forward pass reads.

    Args:
        ids: int64 [rows, length] token ids. Padding stands on the right, where no token of a causal model
            sees it.
        positions: int64 [rows, length], counting from 0 in each dialogue, where several lie in one row; else
            ``None``.
        at: int64 [targets] places in the flattened ``ids`` whose next token carries loss.
        targets: int64 [targets] those next tokens.
        share: what the sum of this batch's losses is multiplied with.
        number: of the micro-batch within the run, from 0; seeds dropout.
    """

    ids: Int[Tensor, "rows length"]
    positions: Int[Tensor, "rows length"] | None
    at: Int[Tensor, " targets"]
    targets: Int[Tensor, " targets"]
    share: float = 1.0
    number: int = 0


def padded(some: Sequence[Example], pad: int = 0) -> Batch:
    """One row for each example, padded on the right.

    Example:
        >>> batch = padded([Example((5, 6, 7), 1), Example((8, 9), 0)])
        >>> batch.ids.tolist(), batch.at.tolist(), batch.targets.tolist()
        ([[5, 6, 7], [8, 9, 0]], [0, 1, 3], [6, 7, 9])
    """
    longest = max(len(example.ids) for example in some)
    ids = torch.tensor([[*example.ids, *[pad] * (longest - len(example.ids))] for example in some])
    return Batch(ids, None, *_targets(some, [row * longest for row in range(len(some))]))


def packed(some: Sequence[Example]) -> Batch:
    """All examples in one row; positions begin anew with each, which keeps attention inside it.

    Example:
        >>> batch = packed([Example((5, 6, 7), 1), Example((8, 9), 0)])
        >>> batch.ids.tolist(), batch.positions.tolist(), batch.at.tolist()
        ([[5, 6, 7, 8, 9]], [[0, 1, 2, 0, 1]], [0, 1, 3])
    """
    ids = torch.tensor([[token for example in some for token in example.ids]])
    positions = torch.tensor([[place for example in some for place in range(len(example.ids))]])
    starts = [0]
    for example in some[:-1]:
        starts.append(starts[-1] + len(example.ids))
    return Batch(ids, positions, *_targets(some, starts))


def _targets(some: Sequence[Example], starts: Sequence[int]) -> tuple[Tensor, Tensor]:
    at, targets = [], []
    for example, start in zip(some, starts, strict=True):
        for place in range(example.start, len(example.ids)):
            at.append(start + place - 1)
            targets.append(example.ids[place])
    return torch.tensor(at, dtype=torch.long), torch.tensor(targets, dtype=torch.long)


def _unread(example: Example) -> Example:
    """An example without loss, for a rank without work: the others wait for it in every pass."""
    return Example(example.ids, prompt=len(example.ids))


class TrainBatches:
    """This rank's micro-batches of a whole run, in order; one that is resumed begins where it was left.

    The loss of a step is the mean over its tokens, wherever they lie: a sum is divided by the tokens of the whole
    step. Averaging over ranks and micro-batches, which the trainer does by itself, is multiplied out.

    Args:
        some: the examples.
        steps: the plan.
        rank: this process.
        pack: whether rows are packed.
    """

    def __init__(self, some: Sequence[Example], steps: Sequence[Step], rank: int = 0, pack: bool = False) -> None:
        self.some, self.steps, self.rank, self.pack = some, steps, rank, pack
        self._done = 0

    def __len__(self) -> int:
        return sum(len(step.shares) for step in self.steps)

    def __iter__(self) -> Iterator[Batch]:
        number = 0
        for step in self.steps:
            for micro in step.shares:
                number += 1
                if number > self._done:
                    self._done = number
                    yield self._batch(step, micro, number - 1)
        self._done = 0  # another pass over the loader begins anew

    def _batch(self, step: Step, micro: tuple[tuple[int, ...], ...], number: int) -> Batch:
        chosen = [self.some[index] for index in micro[self.rank]] or [_unread(self.some[step.indices[0]])]
        batch = packed(chosen) if self.pack else padded(chosen)
        batch.share = len(step.shares) * len(micro) / max(step.targets, 1)
        batch.number = number * len(micro) + self.rank
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where the run is: micro-batches handed out."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin after those handed out before."""
        self._done = int(state["done"])


def held_out_batches(some: Sequence[Example], size: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
    """This rank's share of the held-out examples, by length; ranks get equally many, the last may be without loss.

    Args:
        some: the examples.
        size: most examples of a batch.
        rank: this process.
        ranks: all processes.
    """
    order = sorted(some, key=lambda example: len(example.ids))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    groups += [[_unread(order[0])]] * (-len(groups) % ranks)
    return [padded(group) for group in groups[rank::ranks]]
