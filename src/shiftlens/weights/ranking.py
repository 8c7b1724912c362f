"""The entries of largest magnitude, with ties decided by place and not by the sorting routine."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor


def top_by_magnitude(values: Float[Tensor, "rows columns"], top: int) -> Int64[Tensor, "rows top"]:
    """Columns of the largest ``|value|`` in every row, largest first; of equals the lower column comes first.

    Args:
        values: [rows, columns]; quickest where rows are contiguous.
        top: how many, all columns at most.

    Raises:
        ValueError: ``top`` is not from 1 to the number of columns, or values are not finite.

    Example:
        >>> import torch
        >>> top_by_magnitude(torch.tensor([[1.0, -3.0, 3.0, 0.5]]), 2).tolist()
        [[1, 2]]
    """
    columns = values.shape[1]
    if not 1 <= top <= columns:
        raise ValueError(f"top must be from 1 to the {columns} columns, got {top}")
    magnitude = values.abs()
    # One more than wanted, to see a tie across the edge. A value that is not a number ranks above all.
    largest, found = magnitude.topk(min(top + 1, columns), dim=1)
    if not largest.isfinite().all():
        raise ValueError("values to rank are not finite: look for overflow or NaN in the weights or embeddings")
    tied = (largest[:, 1:] == largest[:, :-1]).any(dim=1).nonzero().squeeze(1)
    if len(tied):
        found[tied] = magnitude[tied].sort(dim=1, descending=True, stable=True)[1][:, : largest.shape[1]]
    return found[:, :top]
