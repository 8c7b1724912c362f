"""Lists the positions that a removal changes: all from the first removed one on.

Causal attention leaves everything before the first removed position as it was, so its keys and values are those of
the text itself, and a response token that is predicted before it loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

REMOVALS = ("zero", "mean", "delete", "neutral")
"""Ways to remove a token: its embedding is set to zero or to the mean over the vocabulary; the token is deleted,
and later ones move up; or another token takes its place."""


@dataclass(frozen=True)
class Suffix:
    """What is computed anew without one unit.

    Args:
        unit: Index of the unit.
        start: Position of the first token computed anew; the others follow it without a gap.
        tokens: [rows] Where these tokens stand in the text itself; after a deletion they stand earlier.
        removed: [rows] Whether the token's embedding is replaced.
        columns: [affected] Response tokens that are predicted anew, counted from 0.
        rows: [affected] Rows that predict them.
    """

    unit: int
    start: int
    tokens: Int[np.ndarray, " rows"]
    removed: Bool[np.ndarray, " rows"]
    columns: Int[np.ndarray, " affected"]
    rows: Int[np.ndarray, " affected"]


def suffix_of(
    unit: int, places: Sequence[int], fed: int, response: int, delete: bool, *, whole: bool = False
) -> Suffix:
    """List what is computed anew without the tokens of a unit.

    Args:
        unit: Index of the unit.
        places: Positions of its tokens, in any order, all fed; none leaves the text as it is.
        fed: Number of ids fed: all but the last.
        response: Number of response tokens; the last one is predicted at the last position fed.
        delete: Whether the tokens are deleted; otherwise their embeddings are replaced.
        whole: Whether to start at the first position of the text.

    Raises:
        ValueError: Nothing is left before a response token.

    Example:
        >>> without = suffix_of(0, [2, 4], fed=6, response=3, delete=True)
        >>> without.start, without.tokens.tolist(), without.columns.tolist(), without.rows.tolist()
        (1, [1, 3, 5], [0, 1, 2], [1, 1, 2])
    """
    first = min(places, default=0)
    # After a deletion, the token before it can be the one that predicts.
    start = 0 if whole else max(first - 1, 0) if delete else first
    tokens = np.arange(start, fed)
    removed = np.isin(tokens, np.asarray(places, np.int64))
    if delete:
        tokens, removed = tokens[~removed], np.zeros(int((~removed).sum()), bool)
    columns = np.arange(response)
    predicting = fed - response + columns  # positions in the text itself
    columns, predicting = columns[predicting >= first], predicting[predicting >= first]
    rows = np.searchsorted(tokens, predicting, side="right") - 1  # the last token left
    if (rows < 0).any():
        raise ValueError("by=delete: no token is left before a response token; remove tokens in another way")
    return Suffix(unit, start, tokens, removed, columns, rows)


def packs_of(suffixes: Sequence[Suffix], most: int, rows: int) -> list[list[Suffix]]:
    """Divide suffixes into packs that are computed together, those of similar length in one pack.

    Args:
        suffixes: In any order.
        most: Maximum number of suffixes in a pack.
        rows: Maximum number of rows in a pack of more than one suffix.

    Example:
        >>> three = [suffix_of(i, [i], 6, 2, delete=False) for i in (2, 0, 1)]
        >>> [[suffix.unit for suffix in pack] for pack in packs_of(three, 9, 11)]
        [[0, 1], [2]]
    """
    packs: list[list[Suffix]] = []
    count = 0
    for suffix in sorted(suffixes, key=lambda each: each.start):
        if packs and len(packs[-1]) < most and count + len(suffix.tokens) <= rows:
            packs[-1].append(suffix)
            count += len(suffix.tokens)
        else:
            packs.append([suffix])
            count = len(suffix.tokens)
    return packs
