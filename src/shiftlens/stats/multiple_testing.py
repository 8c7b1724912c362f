"""Corrections of p-values for several tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from statsmodels.stats.multitest import multipletests

from shiftlens.results.finding import Finding


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
