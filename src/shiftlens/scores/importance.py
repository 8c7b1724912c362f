"""Computes sparse scores, importance densities and instruction scores (local view; paper, section 3).

All functions are pure functions of the raw importance I [prompt, response]. A positive factor per response token
does not change the result, so the gradients of log p and of p give the same scores.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

NEGATIVE = ("zero", "size", "own")
"""What negative importance counts as: nothing (as in the paper), as much as positive importance of its size, or
everything, with positive importance as nothing."""


def counted(
    importance: Float[np.ndarray, "prompt response"], negative: str = "zero"
) -> Float[np.ndarray, "prompt response"]:
    """Return the importance as scores count it, whose positive part is then scored.

    Args:
        importance: [prompt, response] raw importance I.
        negative: What negative importance counts as, one of :data:`NEGATIVE`.

    Raises:
        ValueError: ``negative`` is unknown.

    Example:
        >>> I = np.array([[2.0], [-3.0]])
        >>> [counted(I, negative).ravel().tolist() for negative in NEGATIVE]
        [[2.0, -3.0], [2.0, 3.0], [-2.0, 3.0]]
    """
    if negative not in NEGATIVE:
        raise ValueError(f"saliency.negative={negative}: expected one of {', '.join(NEGATIVE)}")
    return {"zero": importance, "size": np.abs(importance), "own": -importance}[negative]


def score(
    importance: Shaped[np.ndarray, "prompt response"], L: int = 10, b: int = 0
) -> UInt8[np.ndarray, "prompt response"]:
    """Return the sparse score ``S = ceil(L * max(I, 0) / max over the prompt of I)``, set to 0 if ``S <= b``.

    Args:
        importance: [prompt, response] raw importance I, any real dtype.
        L: Number of levels, 1..255 (10 in the paper).
        b: Largest level that is set to 0, 0..L-1.

    Returns:
        [prompt, response] levels 0..L. A column without a positive entry is all 0.

    Raises:
        ValueError: If ``L`` or ``b`` is out of range, or ``importance`` is not a matrix or not finite.

    Example:
        >>> score(np.array([[4.0, -1.0], [1.0, 0.0]]), L=10, b=3).tolist()
        [[10, 0], [0, 0]]
    """
    importance = np.asarray(importance)
    if importance.ndim != 2:
        raise ValueError(f"importance must be [prompt, response], got shape {importance.shape}")
    check_levels(L, b)
    if not np.isfinite(importance).all():
        raise ValueError("importance has values that are not finite")
    if importance.shape[0] == 0:
        return np.zeros(importance.shape, np.uint8)
    positive = np.maximum(importance.astype(np.float64), 0.0)
    largest = positive.max(axis=0, keepdims=True)
    # Multiply before dividing, so that an entry of exactly k/L of the largest gets exactly k. For float64
    # input the product may round up, so levels are limited to L.
    share = np.divide(L * positive, largest, out=np.zeros_like(positive), where=largest > 0)
    levels = np.minimum(np.ceil(share), L)
    levels[levels <= b] = 0
    return levels.astype(np.uint8)


def levels_beside(
    importance: Float[np.ndarray, "others response"], prompt: Float[np.ndarray, "prompt response"], L: int, b: int
) -> Float[np.ndarray, "others response"]:
    """Return the levels of further tokens on the scale of the prompt's; they may exceed L.

    Args:
        importance: [others, response] raw importance of tokens outside the prompt.
        prompt: [prompt, response] raw importance of the tokens of the prompt, which set the scale.
        L: Number of levels.
        b: Largest level that is set to 0.

    Returns:
        [others, response] levels; all 0 in a column without a positive entry of the prompt.

    Example:
        >>> levels_beside(np.array([[8.0, 0.1]]), np.array([[4.0, 0.0], [1.0, -1.0]]), L=10, b=3).tolist()
        [[20.0, 0.0]]
    """
    largest = np.maximum(prompt.astype(np.float64), 0.0).max(axis=0, keepdims=True, initial=0.0)
    positive = L * np.maximum(importance.astype(np.float64), 0.0)
    levels = np.ceil(np.divide(positive, largest, out=np.zeros_like(positive), where=largest > 0))
    return np.where(levels > b, levels, 0.0)


def check_levels(L: int, b: int, p: float | int = 4) -> None:
    """Check the number of levels, the threshold and the order of the norm.

    Args:
        L: Number of levels of the sparse score.
        b: Largest level that is set to 0.
        p: Order of the norm in the density.

    Raises:
        ValueError: If a value is out of range; the message lists each of them.

    Example:
        >>> check_levels(10, 10)
        Traceback (most recent call last):
        ValueError: b must be from 0 to L-1 = 9, got 10
    """
    problems = []
    if not (isinstance(L, (int, np.integer)) and 1 <= L <= 255):
        problems.append(f"L must be a whole number from 1 to 255, got {L}")
    elif not (isinstance(b, (int, np.integer)) and 0 <= b < L):
        problems.append(f"b must be from 0 to L-1 = {L - 1}, got {b}")
    if not (isinstance(p, (int, float, np.number)) and 1 <= p < math.inf):
        problems.append(f"p must be a number of at least 1, got {p}")
    if problems:
        raise ValueError("; ".join(problems))


def density(
    S: Shaped[np.ndarray, "prompt response"], p: float | int = 4, normalize: bool = True
) -> Float[np.ndarray, " prompt"]:
    """Return the importance density ``a_n = ||S[n]||_1 / ||S[n]||_p``, divided by the prompt's largest density.

    Args:
        S: [prompt, response] sparse score.
        p: Order of the norm, at least 1 (4 in the paper's tests).
        normalize: Whether to divide by the largest density of the prompt.

    Returns:
        [prompt] densities, float64; 0 for an all-zero row. With ``normalize`` the largest is 1, unless all are 0.

    Raises:
        ValueError: If ``S`` is not a matrix, or ``p`` is below 1.

    Example:
        >>> density(np.array([[9, 9], [9, 0], [0, 0]]), p=2, normalize=False).round(3).tolist()
        [1.414, 1.0, 0.0]
    """
    S = np.asarray(S)
    if S.ndim != 2:
        raise ValueError(f"S must be [prompt, response], got shape {S.shape}")
    check_levels(1, 0, p)
    values = S.astype(np.float64)
    # Scale each row to a largest entry of 1 first, because x**p would overflow for a large p.
    largest = values.max(axis=1, initial=0.0)
    divisor = np.where(largest > 0, largest, 1.0)
    values = values / divisor[:, None]
    norms = (values**p).sum(axis=1) ** (1 / p)
    densities = np.divide(values.sum(axis=1), norms, out=np.zeros(len(values)), where=norms > 0)
    top = densities.max(initial=0.0)
    return densities / top if normalize and top > 0 else densities


def instruction_score(a: Shaped[np.ndarray, " prompt"], mask: Bool[np.ndarray, " prompt"]) -> float:
    """Return the sum of the densities of the instruction tokens, divided by ``log2(2 + their number)``.

    Args:
        a: [prompt] importance density.
        mask: [prompt] which tokens are instruction tokens.

    Returns:
        The instruction score; 0 for an empty mask.

    Raises:
        ValueError: If density and mask are not vectors of equal length.

    Example:
        >>> instruction_score(np.array([1.0, 0.5, 0.25]), np.array([True, True, False]))
        0.75
    """
    a, mask = np.asarray(a, dtype=np.float64), np.asarray(mask, dtype=bool)
    if a.shape != mask.shape or a.ndim != 1:
        raise ValueError(f"density and mask must be vectors of one length, got {a.shape} and {mask.shape}")
    return float(a[mask].sum() / math.log2(2 + mask.sum()))
