"""Defines an embedding table that is converted to float32 only for the rows requested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from shiftlens.models.families.folding import widen


@dataclass(frozen=True)
class Embedding:
    """Embedding table [vocab, width], stored in the model's own dtype.

    Rows are converted to at least float32 when they are read, because the whole table may be large: 128,000 rows
    of width 4096 take 2.1 GB in float32.

    Args:
        weight: [vocab, stored width] tensor of the model; not copied.
        finish: Function that the family applies to converted rows, such as scaling or a projection; ``None`` if
            there is none.

    Example:
        >>> table = Embedding(torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.bfloat16), lambda rows: 2 * rows)
        >>> table[torch.tensor([2, 0])].tolist(), table[:].dtype, len(table)
        ([[6.0], [2.0]], torch.float32, 3)
    """

    weight: Float[Tensor, "vocab stored"]
    finish: Callable[[Float[Tensor, "rows stored"]], Float[Tensor, "rows width"]] | None = None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.weight.device

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, rows: Int64[Tensor, " rows"] | slice) -> Float[Tensor, "rows width"]:
        """[rows, width] the selected rows (``[:]`` selects all), in at least float32."""
        stored = widen(self.weight.detach()[rows])  # [rows, stored width]
        return stored if self.finish is None else self.finish(stored)

    def blocks(self, rows: int = 4096) -> Iterator[Float[Tensor, "rows width"]]:
        """Iterate over all rows in blocks of ``rows``; the last block may be smaller."""
        for start in range(0, len(self), rows):
            yield self[start : start + rows]
