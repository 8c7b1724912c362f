"""What a finding amounts to, after the correction for selection and against its rivals, where it has any."""

from __future__ import annotations

from dataclasses import replace

from shiftlens.analyses.density.specificity import SPECIFICITY
from shiftlens.results.finding import Finding
from shiftlens.stats.result import ALPHA

SUPPORTED = "supported"
NOT_SPECIFIC = "supported but not specific"
NOT_SUPPORTED = "not supported"
NOT_TESTABLE = "not testable"


def verdict(finding: Finding) -> str:
    """The verdict on a finding.

    - *not testable*: there is no p-value.
    - *not supported*: the corrected p-value (the plain one, if nothing was corrected) is above 0.05, or the effect
      is not above 0.
    - *supported*: neither, every control that could be tested is survived, and at least one of the two
      specificity controls could be tested.
    - *supported but not specific*: everything else. The difference is there, but a rival explains it, or
      nothing shows that instruction words make it.

    Args:
        finding: with its corrected p-value and controls.

    Example:
        >>> f = Finding("x/y", "x", "d", "both", "?", "0", "t", 9, {}, 0.5, "Hedges g", None, 0.01)
        >>> verdict(f)
        'supported but not specific'
    """
    if finding.p is None or finding.effect is None:
        return NOT_TESTABLE
    p = finding.p if finding.p_corrected is None else finding.p_corrected
    if p > ALPHA or finding.effect <= 0:
        return NOT_SUPPORTED
    tested = [control for control in finding.controls if control.survives is not None]
    specific = any(control.name in SPECIFICITY for control in tested)
    return SUPPORTED if specific and all(control.survives for control in tested) else NOT_SPECIFIC


def two_sided(finding: Finding) -> Finding:
    """A finding with the verdict on a question that has no rivals to stand against.

    *not testable* without p; *supported* where p, corrected where it was, is at most 0.05, in a two-sided test
    whichever way the effect goes; else *not supported*.

    Args:
        finding: with its corrected p-value.

    Example:
        >>> two_sided(Finding("x/y", "x", "d", "both", "?", "0", "t", 9, {}, -0.5, "g", None, 0.01)).verdict
        'supported'
    """
    p = finding.p if finding.p_corrected is None else finding.p_corrected
    word = NOT_TESTABLE if p is None else SUPPORTED if p <= ALPHA else NOT_SUPPORTED
    return replace(finding, verdict=word)
