"""Packs several derivatives into one matrix, with only the positions each of them reaches.

A token row is one derivative at one position. Below, an offset is a position counted from the start of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

COUNT, ROWS = 16, 2700
"""Most derivatives per pack, and about how many rows: enough for full speed, few enough for a CPU's cache."""


class Part:
    """A pack: several derivatives in one matrix of token rows.

    A tangent reaches from its source to the cut, a cotangent from the cut to the position that predicts its
    response token. A grid [offsets, derivatives, ...] would hold zeros wherever a derivative does not reach; a
    pack has only rows that are reached: first those of the offsets that all derivatives reach, then the others.

    Args:
        reach: For each derivative, the first offset it reaches and the end, one past the last.
        tips: [derivatives, width] value of each derivative at the offset where it enters; zero at all others.
        at: Offset where each derivative enters.

    Attributes:
        count: Number of derivatives.
        low: First offset that any derivative reaches.
        high: End of the offsets that any derivative reaches, one past the last.
        rows: [rows, width] token rows; callers change them in place.

    Example:
        >>> pack = Part([(0, 2), (0, 3)], torch.ones(2, 4), [1, 2])
        >>> pack.rows.sum(1).tolist(), pack.grid(pack.rows).shape
        ([0.0, 0.0, 4.0, 0.0, 4.0], torch.Size([3, 2, 4]))
    """

    def __init__(self, reach: Sequence[tuple[int, int]], tips: Float[Tensor, "derivative width"], at: list[int]):
        firsts, ends = zip(*reach, strict=True)
        self.count, self.low, self.high = len(reach), min(firsts), max(ends)
        self._common = slice(max(firsts), max(*firsts, min(ends)))  # offsets that all derivatives reach
        further = [
            (offset, column)
            for offset in range(self.low, self.high)
            if not self._common.start <= offset < self._common.stop
            for column, (first, end) in enumerate(reach)
            if first <= offset < end
        ]
        # [further rows] each: offset and derivative of every row outside the common block
        self._places = torch.tensor([offset for offset, _ in further], dtype=torch.long, device=tips.device)
        self._columns = torch.tensor([column for _, column in further], dtype=torch.long, device=tips.device)
        self._edge = (self._common.stop - self._common.start) * self.count  # rows in the common block
        grid = tips.new_zeros(self.high - self.low, self.count, tips.shape[-1])  # [offsets, derivatives, width]
        grid[[offset - self.low for offset in at], range(self.count)] = tips
        self.rows = self.flat(grid)  # [rows, width]

    def pieces(self, x: Tensor) -> tuple[tuple[Tensor, slice | Tensor], ...]:
        """Split rows into two views to which the primal values of their positions can be broadcast.

        Args:
            x: [rows, ...] one entry per token row.

        Returns:
            The common block, [common offsets, derivatives, ...], and the other rows, [further rows, 1, ...], each
            with the offsets along its first axis.
        """
        common = x[: self._edge].view(-1, self.count, *x.shape[1:])  # [common offsets, derivatives, ...]
        return (common, self._common), (x[self._edge :, None], self._places)

    def grid(self, x: Tensor) -> Tensor:
        """Spread rows x, [rows, ...], over a grid [offsets from low, derivatives, ...] of zeros."""
        return self.onto(x.new_zeros(self.high - self.low, self.count, *x.shape[1:]), x)

    def onto(self, grid: Tensor, x: Tensor) -> Tensor:
        """Write rows x, [rows, ...], into a grid [offsets from low, derivatives, ...]; keep its other entries."""
        (common, _), (further, _) = self.pieces(x)  # [common offsets, derivatives, ...], [further rows, 1, ...]
        grid[self._common.start - self.low : self._common.stop - self.low] = common
        grid[self._places - self.low, self._columns] = further[:, 0]
        return grid

    def flat(self, grid: Tensor) -> Tensor:
        """Collect the rows of a grid [offsets from low, derivatives, ...], and flatten each: [rows, width]."""
        rows = grid.new_empty(self._edge + len(self._places), *grid.shape[2:])  # [rows, ...]
        (common, _), (further, _) = self.pieces(rows)
        common.copy_(grid[self._common.start - self.low : self._common.stop - self.low])
        further[:, 0] = grid[self._places - self.low, self._columns]
        return rows.flatten(1)


def groups(lengths: Sequence[int]) -> Iterator[slice]:
    """Divide derivatives, in order, into packs of at most :data:`COUNT` derivatives and about :data:`ROWS` rows.

    Inside attention a pack is spread over a grid as long as its longest derivative, so the grid is bounded too, at
    twice :data:`ROWS`.

    Args:
        lengths: Number of positions that each derivative reaches.

    Yields:
        The derivatives of each pack, as a slice of ``lengths``.

    Example:
        >>> list(groups([2000, 500, 300]))
        [slice(0, 2, None), slice(2, 3, None)]
    """
    start, rows, longest = 0, 0, 0
    for i, length in enumerate(lengths):
        count, longest = i - start + 1, max(longest, length)
        if count > COUNT or rows + length > ROWS or count * longest > 2 * ROWS:
            if count > 1:
                yield slice(start, i)
            start, rows, longest = i, 0, length
        rows += length
    if len(lengths):
        yield slice(start, len(lengths))
