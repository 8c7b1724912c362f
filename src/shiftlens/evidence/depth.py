"""Depth of a model in quarters, and the correction of what was asked of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool
from statsmodels.stats.multitest import multipletests

from shiftlens.evidence.finding import Finding

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


def holm(findings: Sequence[Finding]) -> list[Finding]:
    """Findings with p corrected over all of them that could be tested.

    Source: Holm 1979, as in statsmodels.

    Example:
        >>> def finding(p):
        ...     return Finding("x", "x", "d", "both", "?", "0", "t", 1, {}, None, "g", None, p)
        >>> [f.p_corrected for f in holm([finding(0.01), finding(None), finding(0.04)])]
        [0.02, None, 0.04]
    """
    tested = [finding.p for finding in findings if finding.p is not None]
    corrected = iter(multipletests(tested, method="holm")[1].tolist() if tested else [])
    return [f if f.p is None else replace(f, p_corrected=next(corrected)) for f in findings]
