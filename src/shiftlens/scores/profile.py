"""Density by region and by relative position in the prompt (paper, figure "lost in the middle")."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def region_mean(a: Float[np.ndarray, " prompt"], mask: Bool[np.ndarray, " prompt"]) -> float:
    """Mean density over the tokens of a region; NaN where the region has none.

    Args:
        a: [prompt] importance density.
        mask: [prompt] the region's tokens.

    Example:
        >>> region_mean(np.array([1.0, 0.5]), np.array([True, True]))
        0.75
    """
    return float(a[mask].mean()) if mask.any() else float("nan")


def position_profile(a: Float[np.ndarray, " prompt"], bins: int = 10) -> Float[np.ndarray, " bins"]:
    """Mean density in equal bins of relative position.

    Token n of N lies at ``(n + 0.5) / N``, in the middle of its share of the prompt; one
    exactly on a boundary counts in the bin after it.

    Args:
        a: [prompt] importance density.
        bins: number of bins over 0..1.

    Returns:
        [bins] means; NaN for a bin into which no token falls (prompts shorter than ``bins``).

    Example:
        >>> position_profile(np.array([1.0, 0.0, 0.0, 0.5]), bins=2).tolist()
        [0.5, 0.25]
    """
    place = ((np.arange(len(a)) + 0.5) / max(len(a), 1) * bins).astype(int)
    count = np.bincount(place, minlength=bins)
    total = np.bincount(place, weights=a, minlength=bins)
    return np.divide(total, count, out=np.full(bins, np.nan), where=count > 0)
