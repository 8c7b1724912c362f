"""Rows of tokens that derivatives take through a model, wherever they are cut: what they cost and keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def carried(sources: Sequence[int], total: int, response: int) -> tuple[Rows, Rows]:
    """Rows of tokens that every cut leaves to tangents, and to cotangents; each passes through every layer.

    One tangent per source ahead of the cut, from its place up to there; one cotangent per response token that
    is predicted at the cut or behind, from that place back to there.

    Args:
        sources: positions attributed to.
        total: number of ids, the response at the end.
        response: number of response tokens.

    Returns:
        [total] each, for cuts from 0 to total - 1.

    Example:
        >>> carried([0, 2], 5, 2)
        (array([0, 1, 2, 4, 6]), array([7, 5, 3, 1, 0]))
    """
    # A cut one place further on costs a row for each source ahead of it, and spares one for each token behind.
    places = range(total - response, total)  # behind the one that predicts
    behind = response - _ahead(places, total + 1)[1:]
    return _ahead(sources, total).cumsum(), behind[::-1].cumsum()[::-1]


def _ahead(places: Sequence[int] | Rows, total: int, each: Rows | None = None) -> Rows:
    """[total] how many of some places lie ahead of each position, or the sum of a number that each has."""
    sums = np.bincount(np.asarray(places, dtype=np.int64), each, minlength=total)[: total - 1]
    return np.concatenate([[0], sums.cumsum()]).astype(np.int64)


def token_rows(mode: str, sources: Sequence[int], total: int, response: int, written_out: bool = False) -> int:
    """Rows of tokens that an engine carries derivatives for, through every layer.

    Forward carries one tangent per source from its place to the end; reverse one cotangent per response token
    from the place that predicts it back to the start, or, written out, to the first source. With N prompt tokens
    first and M response tokens that is N (N/2 + M) and M (N + M/2).

    Args:
        mode: ``forward`` or ``reverse``.
        sources: positions attributed to.
        total: number of ids, the response at the end.
        response: number of response tokens.
        written_out: whether the layers are written out, see :mod:`shiftlens.attribution.llama.layer`.

    Example:
        >>> token_rows("forward", range(30), 330, 300), token_rows("reverse", range(30), 330, 300)
        (9435, 53850)
    """
    if mode == "forward":
        return int(carried(sources, total, response)[0][-1])
    return int(carried(sources, total, response)[1][min(sources, default=0) if written_out else 0])


def crossing_rows(sources: Sequence[int], total: int, together: int) -> Rows:
    """Rows of keys and of values whose tangents are kept at every cut, those of a part from its first source on.

    Args:
        sources: positions attributed to.
        total: number of ids.
        together: most tangents in a part.

    Returns:
        [total] for cuts from 0 to total - 1.

    Example:
        >>> crossing_rows([0, 1, 5], 8, 2)
        array([ 0,  1,  4,  6,  8, 10, 13, 16])
    """
    ordered = np.sort(np.asarray(sources, dtype=np.int64))
    first = ordered[np.arange(len(ordered)) // together * together]
    return np.arange(total) * _ahead(ordered, total) - _ahead(ordered, total, first)
