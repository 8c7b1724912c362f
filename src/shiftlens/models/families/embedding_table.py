"""The embeddings of a vocabulary, of which no more is widened than is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from shiftlens.models.families.folding import widen


@dataclass(frozen=True)
class Embedding:
    """A table [vocab, width] kept as the model has it: 128,000 rows of width 4096 are 2.1 GB in float32.

    Args:
        weight: [vocab, stored width] the model's own tensor.
        finish: what the family does to widened rows, as to scale or to project them; ``None`` for nothing.

    Example:
        >>> table = Embedding(torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.bfloat16), lambda rows: 2 * rows)
        >>> table[torch.tensor([2, 0])].tolist(), table[:].dtype, len(table)
        ([[6.0], [2.0]], torch.float32, 3)
    """

    weight: Float[Tensor, "vocab stored"]
    finish: Callable[[Float[Tensor, "rows stored"]], Float[Tensor, "rows width"]] | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weight.device

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, rows: Int64[Tensor, " rows"] | slice) -> Float[Tensor, "rows width"]:
        """Some rows, or ``[:]`` for all, in at least float32."""
        found = widen(self.weight.detach()[rows])
        return found if self.finish is None else self.finish(found)

    def blocks(self, rows: int = 4096) -> Iterator[Float[Tensor, "rows width"]]:
        """All rows in turn, so many at a time."""
        for start in range(0, len(self), rows):
            yield self[start : start + rows]
