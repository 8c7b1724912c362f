"""Averages density over a region, and over bins of relative position (paper, figure "lost in the middle")."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def region_mean(a: Float[np.ndarray, " prompt"], mask: Bool[np.ndarray, " prompt"]) -> float:
    """Return the mean density over the tokens of a region; NaN if the region has no token.

    Args:
        a: [prompt] importance density.
        mask: [prompt] which tokens belong to the region.

    Example:
        >>> region_mean(np.array([1.0, 0.5]), np.array([True, True]))
        0.75
    """
    return float(a[mask].mean()) if mask.any() else float("nan")


def position_profile(a: Float[np.ndarray, " prompt"], bins: int = 10) -> Float[np.ndarray, " bins"]:
    """Return the mean density in bins of equal width over the relative position in the prompt.

    Token n of N is at position ``(n + 0.5) / N``, the middle of its share of the prompt. A token exactly on a
    boundary belongs to the later bin.

    Args:
        a: [prompt] importance density.
        bins: Number of bins over 0..1.

    Returns:
        [bins] mean densities; NaN for a bin without tokens (in prompts with fewer tokens than ``bins``).

    Example:
        >>> position_profile(np.array([1.0, 0.0, 0.0, 0.5]), bins=2).tolist()
        [0.5, 0.25]
    """
    bin_of_token = ((np.arange(len(a)) + 0.5) / max(len(a), 1) * bins).astype(int)
    count = np.bincount(bin_of_token, minlength=bins)
    total = np.bincount(bin_of_token, weights=a, minlength=bins)
    return np.divide(total, count, out=np.full(bins, np.nan), where=count > 0)
