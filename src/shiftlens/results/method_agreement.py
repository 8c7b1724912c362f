"""Says of findings under several methods of attribution under which methods they hold, and judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shiftlens.results.finding import Control, Finding, rejected
from shiftlens.results.verdict import judge

_ASKS = "Is the effect there when the importance of a token is what removing it changes?"


@dataclass(frozen=True)
class Named:
    """How findings name a method of attribution.

    Args:
        label: Stable name, in tables and in names of findings.
        words: What sentences call it.
        exact: Whether its numbers are what removal changes, not an estimate of it.
    """

    label: str
    words: str
    exact: bool = False


GRADIENT = Named("gradient", "gradient x embedding")
"""The paper's method, which made the published scores."""


def agreement(found: Mapping[Named, Sequence[Finding]], specific: bool = False) -> dict[Named, list[Finding]]:
    """Add to each finding what the other methods answer, and judge it.

    Findings of the first method, the headline, keep their names; those of another method have its label behind
    their name. A finding holds under a method by which the same question stands on the same side. Exact removal is
    a rival of every other method's findings, see :func:`removal_control`.

    Args:
        found: Method -> its findings with their rivals, of the same questions and data for all methods.
        specific: Whether the findings set regions against each other, so that no further rival has to ask for what
            is specific.

    Returns:
        Method -> its findings, in their order, with ``method``, ``methods``, ``holds_under`` and verdict.
    """
    answers = {method: {(f.name, f.data): f for f in findings} for method, findings in found.items()}
    removal = next((method for method in found if method.exact), None)
    judged: dict[Named, list[Finding]] = {method: [] for method in found}
    for method, findings in found.items():
        headline = method == next(iter(found))
        for finding in findings:
            same = {each: answers[each].get((finding.name, finding.data)) for each in found}
            rivals = [rival for rival in finding.controls if not rival.removal]
            if finding.testable and not method.exact:
                rivals.append(removal_control(finding, None if removal is None else same[removal], specific))
            finding = replace(
                finding,
                name=finding.name if headline else f"{finding.name}/{method.label}",
                method=method.label,
                methods=tuple(each.label for each in found),
                holds_under=tuple(
                    each.label
                    for each, other in same.items()
                    if other is not None and other.stands and _same_side(finding, other)
                ),
                headline=headline and finding.headline,
            )
            judged[method].append(judge(finding, rivals))
    return judged


def removal_control(finding: Finding, exact: Finding | None, specific: bool = False) -> Control:
    """Build the control that asks whether an effect is there under exact removal: same side, plain p at most 0.05.

    Args:
        finding: The finding by another method.
        exact: The same question under exact removal; ``None`` where removal was not computed.
        specific: Value of the control's field of that name.

    Example:
        >>> finding = Finding("x/y", "x", "d", "both", "?", "0", "t", 9, {}, 0.5, "g", None, 0.02)
        >>> removal_control(finding, None).survives is None, removal_control(finding, finding).survives
        (True, True)
    """
    name = "exact removal"
    if exact is None or not exact.testable:
        why = "it was not computed" if exact is None else exact.why_not
        return Control(name, _ASKS, None, None, None, None, why_not=why, specific=specific, removal=True)
    one_sided = exact.expected is not None
    survives = rejected(exact.p, exact.effect, one_sided) and (one_sided or _same_side(finding, exact))
    return Control(
        name, _ASKS, exact.statistic, exact.p, exact.effect, survives, specific=specific, removal=True
    )  # fmt: skip


def _same_side(one: Finding, other: Finding) -> bool:
    """Whether two effects lie on one side; those of one-sided tests that stand always do."""
    if one.expected is not None:
        return True
    return (
        one.effect is not None and other.effect is not None and bool(np.sign(one.effect) == np.sign(other.effect))
    )
