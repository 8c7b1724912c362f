"""The rule that turns a finding and its rivals into a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shiftlens.results.finding import Control, Finding

EVIDENCE_VERSION = 2
"""Version of the rules and of the list of controls, see the changelog in ``docs/evidence.md``."""

SUPPORTED = "supported"
NOT_SPECIFIC = "supported but not specific"
NOT_SUPPORTED = "not supported"
NOT_TESTABLE = "not testable"


def judge(finding: Finding, rivals: Sequence[Control] = ()) -> Finding:
    """Give a finding its rivals and its verdict.

    - *not testable*: there is no p-value.
    - *not supported*: the finding does not stand, see :attr:`~shiftlens.results.finding.Finding.stands`.
    - *METHOD only*, e.g. *gradient only*: it stands under its own method of attribution, but exact removal does
      not confirm it, or was not computed (``Control.removal``).
    - *supported*: it stands and has no rivals; or it survives every rival that could be tested, and at least
      one of those asks whether the effect is about instruction words (``Control.specific``).
    - *supported but not specific*: it stands, but a rival explains it, or no specific rival could be tested.

    Args:
        finding: The finding with its corrected p-value.
        rivals: Its controls; they replace those it has.

    Returns:
        The finding with ``controls`` and ``verdict``.

    Example:
        >>> found = Finding("x/y", "x", "d", "both", "?", "0", "t", 9, {}, 0.5, "Hedges g", None, 0.01)
        >>> judge(found).verdict
        'supported'
        >>> judge(found, [Control("length", "?", 1.0, 0.2, 0.1, survives=False)]).verdict
        'supported but not specific'
    """
    return replace(finding, controls=tuple(rivals), verdict=_verdict(finding, rivals))


def _verdict(finding: Finding, rivals: Sequence[Control]) -> str:
    if not finding.testable:
        return NOT_TESTABLE
    if not finding.stands:
        return NOT_SUPPORTED
    if any(rival.removal and not rival.survives for rival in rivals):
        return f"{finding.method} only"
    tested = [rival for rival in rivals if rival.survives is not None]
    survives = all(rival.survives for rival in tested)
    specific = any(rival.specific for rival in tested)
    return SUPPORTED if not rivals or (survives and specific) else NOT_SPECIFIC
