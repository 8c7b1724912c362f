"""Makes batches of token ids, padded or packed, and the loaders that yield them."""

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
    """Input of one forward pass.

    Args:
        ids: int64 [rows, length] Token ids. Padding is on the right, where no token of a causal model attends to
            it.
        positions: int64 [rows, length] Position of each token within its dialogue, from 0, if several dialogues
            share a row; otherwise ``None``.
        at: int64 [targets] Indices in the flattened ``ids`` whose next token carries loss.
        targets: int64 [targets] Ids of these next tokens.
        share: Factor on the sum of this batch's losses.
        number: Number of the micro-batch within the run, from 0; the seed of dropout.
    """

    ids: Int[Tensor, "rows length"]
    positions: Int[Tensor, "rows length"] | None
    at: Int[Tensor, " targets"]
    targets: Int[Tensor, " targets"]
    share: float = 1.0
    number: int = 0


def padded(some: Sequence[Example], pad: int = 0) -> Batch:
    """Make a batch with one row per example, padded on the right with the token id ``pad``.

    Example:
        >>> batch = padded([Example((5, 6, 7), 1), Example((8, 9), 0)])
        >>> batch.ids.tolist(), batch.at.tolist(), batch.targets.tolist()
        ([[5, 6, 7], [8, 9, 0]], [0, 1, 3], [6, 7, 9])
    """
    longest = max(len(example.ids) for example in some)
    ids = torch.tensor([[*example.ids, *[pad] * (longest - len(example.ids))] for example in some])
    return Batch(ids, None, *_targets(some, [row * longest for row in range(len(some))]))


def packed(some: Sequence[Example]) -> Batch:
    """Make a batch with all examples in one row.

    Positions restart at 0 with each example; from this, transformers limits attention to the example.

    Example:
        >>> batch = packed([Example((5, 6, 7), 1), Example((8, 9), 0)])
        >>> batch.ids.tolist(), batch.positions.tolist(), batch.at.tolist()
        ([[5, 6, 7, 8, 9]], [[0, 1, 2, 0, 1]], [0, 1, 3])
    """
    ids = torch.tensor([[token for example in some for token in example.ids]])  # [1, length]
    positions = torch.tensor([[position for example in some for position in range(len(example.ids))]])
    starts = [0]
    for example in some[:-1]:
        starts.append(starts[-1] + len(example.ids))
    return Batch(ids, positions, *_targets(some, starts))


def _targets(some: Sequence[Example], starts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return ``at`` and ``targets`` of a batch, each [targets].

    Args:
        some: Examples of the batch.
        starts: Index in the flattened ``ids`` at which each example starts.
    """
    at, targets = [], []
    for example, start in zip(some, starts, strict=True):
        for position in range(example.start, len(example.ids)):
            at.append(start + position - 1)
            targets.append(example.ids[position])
    return torch.tensor(at, dtype=torch.long), torch.tensor(targets, dtype=torch.long)


def _unread(example: Example) -> Example:
    """Return the example without loss, for a rank that has none: every rank must take part in every pass."""
    return Example(example.ids, prompt=len(example.ids))


class TrainBatches:
    """Yields one rank's micro-batches of a whole run, in order; a resumed run continues after the last one.

    The loss of a step is the mean over all its tokens that carry loss, on all ranks. ``Batch.share`` therefore
    divides by the number of these tokens, and undoes the trainer's averaging over ranks and micro-batches.

    Args:
        some: Examples to train on.
        steps: Plan of the run, see :func:`shiftlens.tuning.plan.plan`.
        rank: Number of this process, from 0.
        pack: Whether the examples of a micro-batch share one row.
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
        self._done = 0  # another pass over the loader starts from the first micro-batch

    def _batch(self, step: Step, micro: tuple[tuple[int, ...], ...], number: int) -> Batch:
        chosen = [self.some[index] for index in micro[self.rank]] or [_unread(self.some[step.indices[0]])]
        batch = packed(chosen) if self.pack else padded(chosen)
        batch.share = len(step.shares) * len(micro) / max(step.targets, 1)
        batch.number = number * len(micro) + self.rank
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return the number of micro-batches yielded so far, for a checkpoint."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the micro-batches that the checkpoint counts as yielded."""
        self._done = int(state["done"])


def held_out_batches(some: Sequence[Example], size: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
    """Return one rank's batches of the held-out examples, sorted by length.

    All ranks get the same number of batches; the last batch of a rank may carry no loss.

    Args:
        some: Held-out examples.
        size: Largest number of examples in a batch.
        rank: Number of this process, from 0.
        ranks: Number of processes.
    """
    order = sorted(some, key=lambda example: len(example.ids))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    groups += [[_unread(order[0])]] * (-len(groups) % ranks)
    return [padded(group) for group in groups[rank::ranks]]
