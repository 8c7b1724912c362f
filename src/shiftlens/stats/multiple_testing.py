"""Corrects p-values for the number of tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from shiftlens.results.finding import Finding


def holm(findings: Sequence[Finding], over: str) -> list[Finding]:
    """Correct the decisive p-values of several findings for their number (family-wise error rate).

    Args:
        findings: Findings of one family; those that could not be tested are not counted.
        over: What the findings differ in, e.g. ``quarters of the depth``; added to ``corrected_over`` if at
            least two findings were tested.

    Returns:
        The same findings, in the same order, with ``p_corrected``.

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure".

    Example:
        >>> def finding(p):
        ...     return Finding("x", "x", "d", "both", "?", "0", "t", 1, {}, None, "g", None, p)
        >>> [f.p_corrected for f in holm([finding(0.01), finding(None), finding(0.04)], "prompts")]
        [0.02, None, 0.04]
    """
    # Not by statsmodels, which collects garbage at every call: a second each, where models are in memory.
    tested = np.array([finding.p_decisive for finding in findings if finding.testable], float)
    order = np.argsort(tested)
    steps = np.maximum.accumulate(tested[order] * np.arange(len(tested), 0, -1))
    corrected = iter(np.minimum(steps, 1.0)[np.argsort(order)].tolist())
    noted = (over,) if len(tested) > 1 else ()
    return [
        replace(f, p_corrected=next(corrected), corrected_over=(*f.corrected_over, *noted)) if f.testable else f
        for f in findings
    ]
