"""Ranks entries by magnitude; ties are decided by position, independently of the sorting routine."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor


def top_by_magnitude(values: Float[Tensor, "rows columns"], top: int) -> Int64[Tensor, "rows top"]:
    """Return the columns of the largest ``|value|`` in each row, largest first; ties go to the lower column.

    Args:
        values: [rows, columns] values to rank; fastest if rows are contiguous.
        top: Number of columns to return, at most all.

    Raises:
        ValueError: If ``top`` is not from 1 to the number of columns, or a value is not finite.

    Example:
        >>> import torch
        >>> top_by_magnitude(torch.tensor([[1.0, -3.0, 3.0, 0.5]]), 2).tolist()
        [[1, 2]]
    """
    columns = values.shape[1]
    if not 1 <= top <= columns:
        raise ValueError(f"top must be from 1 to the {columns} columns, got {top}")
    magnitude = values.abs()
    # One more than needed, to detect a tie at the cut. NaN ranks highest, so it is always among the largest.
    largest, indices = magnitude.topk(min(top + 1, columns), dim=1)
    if not largest.isfinite().all():
        raise ValueError("values to rank are not finite: look for overflow or NaN in the weights or embeddings")
    tied = (largest[:, 1:] == largest[:, :-1]).any(dim=1).nonzero().squeeze(1)
    if len(tied):
        indices[tied] = magnitude[tied].sort(dim=1, descending=True, stable=True)[1][:, : largest.shape[1]]
    return indices[:, :top]
