"""Derivatives of a text at those places only that each of them reaches, as rows for matrix products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

COUNT, ROWS = 16, 2700
"""Most derivatives per matrix product, and about so many rows: enough for full speed, few enough for the cache."""


class Part:
    """Some derivatives of a text. A tangent reaches from its source to the cut, a cotangent from it to its token.

    Args:
        reach: of each derivative, its first place and the one behind its last.
        tips: [derivative, width] what enters.
        at: the places where they enter.

    Attributes:
        count: number of derivatives.
        low: first place that any reaches; ``high``: the one behind the last.
        rows: [row, width] one for each place that a derivative reaches; first, place by place, those of places
            that all reach.

    Example:
        >>> part = Part([(0, 2), (0, 3)], torch.ones(2, 4), [1, 2])
        >>> part.rows.sum(1).tolist(), part.grid(part.rows).shape
        ([0.0, 0.0, 4.0, 0.0, 4.0], torch.Size([3, 2, 4]))
    """

    def __init__(self, reach: Sequence[tuple[int, int]], tips: Float[Tensor, "derivative width"], at: list[int]):
        firsts, ends = zip(*reach, strict=True)
        self.count, self.low, self.high = len(reach), min(firsts), max(ends)
        self._common = slice(max(firsts), max(*firsts, min(ends)))
        further = [
            (place, column)
            for place in range(self.low, self.high)
            if not self._common.start <= place < self._common.stop
            for column, (first, end) in enumerate(reach)
            if first <= place < end
        ]
        self._places = torch.tensor([place for place, _ in further], dtype=torch.long, device=tips.device)
        self._columns = torch.tensor([column for _, column in further], dtype=torch.long, device=tips.device)
        self._edge = (self._common.stop - self._common.start) * self.count
        grid = tips.new_zeros(self.high - self.low, self.count, tips.shape[-1])
        grid[[place - self.low for place in at], range(self.count)] = tips
        self.rows = self.flat(grid)

    def pieces(self, x: Tensor) -> tuple[tuple[Tensor, slice | Tensor], ...]:
        """Views [place, derivative, ...] of x [row, ...], each with its places."""
        common = x[: self._edge].view(-1, self.count, *x.shape[1:])
        return (common, self._common), (x[self._edge :, None], self._places)

    def grid(self, x: Tensor) -> Tensor:
        """Put x [row, ...] on [place - low, derivative, ...], zero at places that a derivative does not reach."""
        return self.onto(x.new_zeros(self.high - self.low, self.count, *x.shape[1:]), x)

    def onto(self, grid: Tensor, x: Tensor) -> Tensor:
        """The same, on a grid that is given; its other places are left as they are."""
        (common, _), (further, _) = self.pieces(x)
        grid[self._common.start - self.low : self._common.stop - self.low] = common
        grid[self._places - self.low, self._columns] = further[:, 0]
        return grid

    def flat(self, grid: Tensor) -> Tensor:
        """The rows, [row, width], of a grid [place - low, derivative, ...]."""
        rows = grid.new_empty(self._edge + len(self._places), *grid.shape[2:])
        (common, _), (further, _) = self.pieces(rows)
        common.copy_(grid[self._common.start - self.low : self._common.stop - self.low])
        further[:, 0] = grid[self._places - self.low, self._columns]
        return rows.flatten(1)


def groups(lengths: Sequence[int]) -> Iterator[slice]:
    """Cut derivatives, in order, into parts of at most :data:`COUNT` and about :data:`ROWS` rows.

    Inside attention a part is a grid, as long as its longest derivative: twice as many places at the most.

    Args:
        lengths: number of places that each reaches.

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
