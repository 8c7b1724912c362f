"""Computes instruction scores for every choice of L, b and p at once.

The density of a prompt token depends only on the *histogram* of its levels: with h[s] the number of response
tokens for which the prompt token has level s, ``||S||_1 = sum over s > b of s h[s]`` and
``||S||_p^p = sum over s > b of s^p h[s]``. So each matrix is read once, and every further setting costs a few
operations per prompt token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from shiftlens.scores import check_levels
from shiftlens.scores.scored import Scored, samples_frame, starts
from shiftlens.scores.settings import Settings

LEVELS = (5, 10, 20)
NORMS = (2, 3, 4, 5, 6)
_BLOCK = 50_000  # prompt tokens per block: bounds the memory, independent of the number of prompts


def all_settings(Ls: Sequence[int] = LEVELS, ps: Sequence[float | int] = NORMS) -> tuple[Settings, ...]:
    """List every combination (L, b, p) with b from 0 to L - 1.

    Args:
        Ls: Numbers of levels.
        ps: Exponents of the norm.

    Example:
        >>> len(all_settings()), len(all_settings(Ls=[10]))
        (175, 50)
    """
    return tuple(Settings(L, b, p) for L in Ls for b in range(L) for p in ps)


@dataclass(frozen=True)
class Grid:
    """Instruction scores of all records under all settings.

    Args:
        settings: Settings (L, b, p), one per row of ``scores``.
        records: Records, one per column of ``scores``.
        scores: [settings, records] Instruction scores.
    """

    settings: tuple[Settings, ...]
    records: tuple[Scored, ...]
    scores: Float[np.ndarray, "settings records"]

    def at(self, setting: Settings) -> Float[np.ndarray, " records"]:
        """Return the instruction scores at one setting, [records].

        Raises:
            ValueError: The setting is not in the grid.
        """
        return self.scores[self.settings.index(setting)]

    def samples(self, setting: Settings) -> pd.DataFrame:
        """Build the table from which T1 and T2 are computed, at one setting; one row per record."""
        return samples_frame(self.records, self.at(setting))


def grid(records: Iterable[Scored], settings: Sequence[Settings] | None = None) -> Grid:
    """Compute the instruction scores of all records under all settings, in one pass over the matrices.

    Args:
        records: Records to score.
        settings: Settings to use; ``None`` for L in 5, 10, 20, every b, and p in 2..6.

    Returns:
        The grid; up to rounding equal to :func:`shiftlens.scores.instruction_score` at each setting.

    Raises:
        ConfigError: The kept scores cannot give one of the values of L.
        ValueError: L, b or p is out of range.

    Example:
        >>> first = np.array([True, False])
        >>> record = Scored("d", "1", "base", ~first, first, None, importance=np.array([[4.0, 1.0], [1.0, 2.0]]))
        >>> grid([record], [Settings(10, 0, 2), Settings(10, 5, 2)]).scores.round(3).tolist()
        [[0.586], [0.631]]
    """
    records = tuple(records)
    settings = all_settings() if settings is None else tuple(settings)
    for setting in settings:
        check_levels(setting.L, setting.b, setting.p)
    Ls = sorted({setting.L for setting in settings})
    blocks = [_block_scores(block, settings, Ls) for block in _blocks(records)]
    scores = np.concatenate(blocks, axis=1) if blocks else np.zeros((len(settings), 0))
    return Grid(settings, records, scores)


def token_histograms(record: Scored, Ls: Sequence[int]) -> dict[int, Int[np.ndarray, "sources _"]]:
    """Count, for each source token and level, the response tokens for which the source token has this level.

    Adding neighbouring levels of a histogram with 2 L levels gives the histogram with L levels. This shortcut is
    used only if the ratio is a power of two, because it is then exact in floating point too (multiplication by 2
    does not round; only entries below 1e-300 of the largest in a float64 column could differ). For other ratios
    the levels are computed from the record.

    Args:
        record: Record of one response.
        Ls: Numbers of levels.

    Returns:
        L -> [sources, L + 1] counts of response tokens.

    Example:
        >>> none = np.zeros(1, bool)
        >>> record = Scored("d", "1", "base", none, none, None, importance=np.array([[1.0, 0.0, 2.0]]))
        >>> token_histograms(record, [2])[2].tolist()
        [[1, 0, 2]]
    """
    histograms: dict[int, Int[np.ndarray, "_ _"]] = {}
    for L in sorted(Ls, reverse=True):
        finer = next((K for K in histograms if K % L == 0 and _is_power_of_two(K // L)), None)
        if finer is None:
            S = record.levels(L)
            cell = np.arange(len(S))[:, None] * (L + 1) + S  # [sources, response]: index of (source, level)
            histograms[L] = np.bincount(cell.ravel(), minlength=len(S) * (L + 1)).reshape(len(S), L + 1)
        else:
            merged = histograms[finer][:, 1:].reshape(-1, L, finer // L).sum(axis=2)  # [sources, L]
            histograms[L] = np.concatenate([histograms[finer][:, :1], merged], axis=1)
    return histograms


def _is_power_of_two(n: int) -> bool:
    return n & (n - 1) == 0


def _blocks(records: Sequence[Scored]) -> Iterator[list[Scored]]:
    block: list[Scored] = []
    tokens = 0
    for record in records:
        block.append(record)
        tokens += len(record.instruction)
        if tokens >= _BLOCK:
            yield block
            block, tokens = [], 0
    if block:
        yield block


def _block_scores(
    records: Sequence[Scored], settings: Sequence[Settings], Ls: Sequence[int]
) -> Float[np.ndarray, "settings records"]:
    histograms = [token_histograms(record, Ls) for record in records]
    lengths = np.array([len(h[Ls[0]]) for h in histograms])
    mask = np.zeros(lengths.sum(), bool)  # [tokens]; response tokens as sources stay False
    for start, record in zip(starts(lengths), records, strict=True):
        mask[start : start + len(record.instruction)] = record.instruction
    scores = np.zeros((len(settings), len(records)))
    for L in Ls:
        counts = np.concatenate([h[L] for h in histograms])  # [tokens, L + 1]
        for p in {setting.p for setting in settings if setting.L == L}:
            by_b = _instruction_scores(counts, p, mask, lengths)  # [L, records]
            for row, setting in enumerate(settings):
                if (setting.L, setting.p) == (L, p):
                    scores[row] = by_b[setting.b]
    return scores


def _instruction_scores(
    counts: Int[np.ndarray, "tokens _"],
    p: float | int,
    mask: Bool[np.ndarray, " tokens"],
    lengths: Int[np.ndarray, " records"],
) -> Float[np.ndarray, "_ records"]:
    """Compute instruction scores for every b from 0 to L - 1.

    Args:
        counts: [tokens, L + 1] Level histograms of the source tokens of all records, one record after another.
        p: Exponent of the norm.
        mask: [tokens] Whether each token is an instruction token.
        lengths: [records] Number of source tokens of each record.

    Returns:
        [L, records] instruction scores, one row per b.
    """
    level = np.arange(1, counts.shape[1])
    present = counts[:, 1:]  # [tokens, L]: level 0 never counts
    # Levels are divided by the token's largest level, because s ** p would overflow for a large p.
    largest = np.where(present > 0, level, 0).max(axis=1, initial=0)
    share = level / np.maximum(largest, 1)[:, None]
    density = _tail_sums(present * share)  # [tokens, b]
    norm = _tail_sums(present * np.minimum(share, 1.0) ** p) ** (1 / p)
    density = np.divide(density, norm, out=np.zeros_like(norm), where=norm > 0)
    scores = np.zeros((density.shape[1], len(lengths)))
    filled = lengths > 0  # reduceat cannot sum over an empty record
    first = starts(lengths)[filled]
    if len(first):
        top = np.maximum.reduceat(density, first, axis=0)
        held = np.add.reduceat(density * mask[:, None], first, axis=0)
        size = np.add.reduceat(mask.astype(int), first)
        share_of_top = np.divide(held, top, out=np.zeros_like(held), where=top > 0)
        scores[:, filled] = (share_of_top / np.log2(2 + size)[:, None]).T
    return scores


def _tail_sums(values: Float[np.ndarray, "tokens levels"]) -> Float[np.ndarray, "tokens levels"]:
    """Sum over the levels above b, for every b: [tokens, b]. Column 0 of ``values`` holds level 1."""
    return np.cumsum(values[:, ::-1], axis=1)[:, ::-1]
