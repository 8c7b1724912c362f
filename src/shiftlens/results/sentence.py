"""Tells a finding in one plain sentence, for readers who do not want the table."""

from __future__ import annotations

import math
from collections.abc import Iterable

from shiftlens.results.finding import Finding, Group


def sentence(finding: Finding) -> str:
    """Say what a finding found; a difference is claimed only where the finding stands.

    Args:
        finding: The finding.

    Returns:
        One or two sentences of plain text.

    Example:
        >>> groups = {"base": Group(1.0, 0.5, 252), "tuned": Group(1.19, 0.5, 252)}
        >>> head = ("density/base_vs_tuned", "density", "news", "both", "", "", "")
        >>> made = Finding(*head, 252, groups, 0.29, "Hedges g", (0.1, 0.4), 3.2e-6, measure="instruction score")
        >>> print(sentence(made))  # doctest: +NORMALIZE_WHITESPACE
        On news, the instruction score is higher for tuned than for base: 1.19 vs 1.00,
        Hedges g 0.29 [0.10, 0.40], p = 3e-6, n = 252.
    """
    if not finding.testable:
        return f"{finding.question} Not testable on {finding.data}: {finding.why_not or 'no reason given'}."
    numbers = f"{effect(finding)}, {p_values(finding)}, n = {finding.n}."
    if len(finding.groups) != 2 or not finding.measure:
        return f"{finding.question} On {finding.data}: {numbers}"
    high, low = sorted(finding.groups, key=lambda name: finding.groups[name].mean, reverse=True)
    means = " vs ".join(_mean(finding.groups[name], finding.unit) for name in (high, low))
    measure = finding.measure + (f" ({finding.role} model)" if finding.role != "both" else "")
    if finding.stands:
        claim = f"the {measure} is higher for {high} than for {low}: {means}"
    elif _opposite(finding):
        other_way = f"the sample points the other way, to {high}: {means}"
        claim = f"the {measure} is not shown to be higher for {finding.expected}; {other_way}"
    else:
        claim = f"the {measure} shows no clear difference between {high} and {low}: {means}"
    return f"On {finding.data}, {claim}, {numbers}{_agreement(finding)}"


def untestable(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Findings that could not be tested, by reason, in the order in which reasons come first.

    Example:
        >>> blank = ("", "", "", "", "", "", 1, {}, None, "", None, None)
        >>> made = [Finding(name, *blank, why_not="few") for name in "ab"]
        >>> {why: [finding.name for finding in same] for why, same in untestable(made).items()}
        {'few': ['a', 'b']}
    """
    reasons: dict[str, list[Finding]] = {}
    for finding in findings:
        if not finding.testable:
            reasons.setdefault(finding.why_not or "no reason given", []).append(finding)
    return reasons


def effect(finding: Finding) -> str:
    """The effect size with its interval, e.g. ``Hedges g 0.29 [0.10, 0.40]``, or a dash.

    Example:
        >>> effect(Finding(*7 * [""], 9, {}, -0.001, "Hedges g", (-0.2, 0.2), 0.9))
        'Hedges g 0.00 [-0.20, 0.20]'
    """
    if finding.effect is None:
        return "–"
    interval = f" [{finding.ci[0]:z.2f}, {finding.ci[1]:z.2f}]" if finding.ci is not None else ""
    return f"{finding.effect_name} {finding.effect:z.2f}{interval}"


def groups(finding: Finding) -> list[str]:
    """Mean, spread and size of each group, e.g. ``base 1.00 ± 0.50 (252)``; a dash for what is not known.

    A group without members has neither mean nor spread, whatever stands in for them.

    Example:
        >>> made = {"base": Group(1.0, 0.5, 9), "tuned": Group(1.2, float("nan"), 1), "none": Group(0.0, 0.0, 0)}
        >>> groups(Finding("", "", "", "", "", "", "", 1, made, None, "", None, None))
        ['base 1.00 ± 0.50 (9)', 'tuned 1.20 ± – (1)', 'none – (0)']
    """
    return [
        f"{name} {_two(g.mean)} ± {_two(g.std)} ({g.n})" if g.n else f"{name} – (0)"
        for name, g in finding.groups.items()
    ]


def p_values(finding: Finding) -> str:
    """The p-value and, where there is one, the corrected p-value that decides.

    Example:
        >>> p_values(Finding(*7 * [""], 9, {}, 0.1, "g", None, 0.02, p_corrected=0.31))
        'p = 0.02, corrected p = 0.31'
    """
    corrected = "" if finding.p_corrected is None else f", corrected p {p_value(finding.p_corrected)}"
    return f"p {p_value(finding.p)}{corrected}"


def p_value(p: float | None) -> str:
    """A p-value as people write it.

    Example:
        >>> [p_value(p) for p in (0.0312, 3.2e-6, 0.0, 0.9996, None)]
        ['= 0.031', '= 3e-6', '< 1e-300', '> 0.99', 'not testable']
    """
    if p is None:
        return "not testable"
    if p < 1e-300:
        return "< 1e-300"
    if p > 0.99:
        return "> 0.99"
    if p >= 0.001:
        return f"= {p:.2g}"
    mantissa, exponent = f"{p:.0e}".split("e")
    return f"= {mantissa}e{int(exponent)}"


def _agreement(finding: Finding) -> str:
    """Under how many of several methods of attribution the finding stands."""
    if len(finding.methods) < 2 or not finding.stands:
        return ""
    return f" It holds under {len(finding.holds_under)} of {len(finding.methods)} methods."


def _opposite(finding: Finding) -> bool:
    """Whether a one-sided test missed a difference that lies on the other side."""
    clear = finding.ci is not None and (finding.ci[0] > 0 or finding.ci[1] < 0)
    return finding.expected is not None and clear and finding.p is not None and finding.p > 0.5


def _mean(group: Group, unit: str) -> str:
    return f"{group.mean:.1%}" if unit == "%" else f"{group.mean:z.2f}"


def _two(value: float) -> str:
    return f"{value:z.2f}" if math.isfinite(value) else "–"
