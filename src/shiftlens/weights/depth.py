"""Splits the layers of a model into quarters of its depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

QUARTERS = 4


def depth_parts(layers: Sequence[int], depth: int) -> dict[str, Bool[np.ndarray, " layers"]]:
    """Which layers are in each quarter of the depth, quarter ``1`` next to the input, and in ``all``.

    Args:
        layers: layers looked at, from 0.
        depth: number of layers of the model.

    Returns:
        Name -> mask over ``layers``; quarters without a layer are left out.

    Example:
        >>> {name: part.tolist() for name, part in depth_parts([0, 7], 8).items()}
        {'1': [True, False], '4': [False, True], 'all': [True, True]}
    """
    quarter = np.array(layers, int) * QUARTERS // max(depth, 1)
    parts = {str(q + 1): quarter == q for q in range(QUARTERS)}
    return {name: part for name, part in parts.items() if part.any()} | {"all": np.ones(len(layers), bool)}
