"""Counts token rows (one derivative at one position) for every possible cut: compute and memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TokenRows = NDArray[np.int64]


def carried(sources: Sequence[int], total: int, response: int) -> tuple[TokenRows, TokenRows]:
    """Count, for every possible cut, the token rows of the tangents and those of the cotangents.

    Each source before the cut has a tangent from its position up to the cut. Each response token that is predicted
    at the cut or later has a cotangent from the predicting position back to the cut. Every row passes through all
    layers.

    Args:
        sources: Positions to attribute to.
        total: Number of ids, with the response at the end.
        response: Number of response tokens.

    Returns:
        Rows of tangents and rows of cotangents, [total] each, for cuts from 0 to total - 1.

    Example:
        >>> carried([0, 2], 5, 2)
        (array([0, 1, 2, 4, 6]), array([7, 5, 3, 1, 0]))
    """
    # A cut one position later adds a row for each source before it, and saves one for each token predicted later.
    positions = range(total - response, total)  # of the response tokens, each predicted one position earlier
    later_tokens = response - _ahead(positions, total + 1)[1:]  # [total], predicted at a cut or later
    return _ahead(sources, total).cumsum(), later_tokens[::-1].cumsum()[::-1]


def _ahead(positions: Sequence[int] | TokenRows, total: int, weights: TokenRows | None = None) -> TokenRows:
    """Count, for each position of a text, the ``positions`` before it, or sum their weights: [total]."""
    sums = np.bincount(np.asarray(positions, dtype=np.int64), weights, minlength=total)[: total - 1]
    return np.concatenate([[0], sums.cumsum()]).astype(np.int64)


def token_rows(mode: str, sources: Sequence[int], total: int, response: int, written_out: bool = False) -> int:
    """Count the token rows that an engine computes in each layer.

    Forward mode carries one tangent per source from the source to the end of the text. Reverse mode carries one
    cotangent per response token from the predicting position back to the start, or, with hand-written derivatives,
    to the first source. For N prompt tokens followed by M response tokens, these are N (N/2 + M) and M (N + M/2)
    rows.

    Args:
        mode: ``forward`` or ``reverse``.
        sources: Positions to attribute to.
        total: Number of ids, with the response at the end.
        response: Number of response tokens.
        written_out: Whether the derivatives are hand-written, see :mod:`shiftlens.attribution.llama.layer`.

    Example:
        >>> token_rows("forward", range(30), 330, 300), token_rows("reverse", range(30), 330, 300)
        (9435, 53850)
    """
    if mode == "forward":
        return int(carried(sources, total, response)[0][-1])
    return int(carried(sources, total, response)[1][min(sources, default=0) if written_out else 0])


def crossing_rows(sources: Sequence[int], total: int, together: int) -> TokenRows:
    """Count, for every possible cut, the rows of keys and values whose tangents are kept.

    Tangents are packed in the order of the sources; each tangent of a pack keeps the rows from the pack's first
    source up to the cut.

    Args:
        sources: Positions to attribute to.
        total: Number of ids.
        together: Maximum number of tangents in a pack.

    Returns:
        Rows for cuts from 0 to total - 1, [total].

    Example:
        >>> crossing_rows([0, 1, 5], 8, 2)
        array([ 0,  1,  4,  6,  8, 10, 13, 16])
    """
    ordered = np.sort(np.asarray(sources, dtype=np.int64))
    first = ordered[np.arange(len(ordered)) // together * together]  # for each source, the first one of its pack
    return np.arange(total) * _ahead(ordered, total) - _ahead(ordered, total, first)
