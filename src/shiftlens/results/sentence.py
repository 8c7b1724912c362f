"""A finding in one plain sentence, for readers who do not want the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from shiftlens.results.finding import Finding

_MEASURES = {
    "density": "instruction score",
    "faithfulness/zero_base_vs_tuned": "rank correlation with ablation to zero",
    "faithfulness/mean_base_vs_tuned": "rank correlation with ablation to the mean",
    "faithfulness/zero_vs_mean_base_vs_tuned": "rank correlation of the two ablations",
    "tokens/first_vs_second_half": "share of shifted tokens",
    "tokens/shifted_vs_unshifted": "instruction's share of the importance",
}
_DEPTH = {"all": "Over all layers", **{str(q): f"In quarter {q} of the depth" for q in range(1, 5)}}


def sentence(finding: Finding) -> str:
    """Say what ``finding`` found, without claiming a difference where p is 0.05 or above.

    Args:
        finding: the finding.

    Returns:
        One or two sentences of plain text.

    Example:
        >>> from shiftlens.results.finding import Group
        >>> groups = {"base": Group(1.0, 0.5, 252), "tuned": Group(1.19, 0.5, 252)}
        >>> head = ("density/base_vs_tuned", "density", "news", "both", "", "", "")
        >>> print(sentence(Finding(*head, 252, groups, 0.29, "Hedges g", (0.1, 0.4), 3.2e-6)))
        ... # doctest: +NORMALIZE_WHITESPACE
        On news, the instruction score is higher for tuned than for base: 1.19 vs 1.00,
        Hedges g 0.29 [0.10, 0.40], p = 3e-6, n = 252.
    """
    if not finding.testable:
        why = finding.note.removeprefix("not testable: ") or "no reason given"
        return f"{finding.question} Not testable on {finding.data}: {why}."
    if finding.view in _TELL and len(finding.groups) == 2:
        return _TELL[finding.view](finding)
    measure = _MEASURES.get(finding.name) or _MEASURES.get(finding.view, finding.view)
    numbers = f"{effect(finding)}, p {p_value(finding.p)}, n = {finding.n}."
    if len(finding.groups) != 2:
        return f"{finding.question} On {finding.data}: {numbers}"
    high, low = sorted(finding.groups.items(), key=lambda item: item[1].mean, reverse=True)
    means = f"{high[1].mean:z.2f} vs {low[1].mean:z.2f}"
    who = f" ({finding.role} model)" if finding.role != "both" else ""
    if finding.p is not None and finding.p < 0.05:
        claim = f"the {measure}{who} is higher for {high[0]} than for {low[0]}: {means}"
    elif _opposite(finding):
        claim = f"the {measure}{who} is higher for {high[0]}, opposite to the direction tested: {means}"
    else:
        claim = f"the {measure}{who} shows no clear difference between {high[0]} and {low[0]}: {means}"
    return f"On {finding.data}, {claim}, {numbers}"


def headline(finding: Finding) -> bool:
    """Whether ``finding`` answers for a whole view; the others are details, told beside their figure.

    It is a matter of the question asked, never of the answer.

    Example:
        >>> names = "density/base_vs_tuned", "concepts/rotation/all", "concepts/rotation/1", "concepts/task/math"
        >>> [headline(Finding(n, n.split("/")[0], "", "", "", "", "", 1, {}, None, "", None, None)) for n in names]
        [True, True, False, False]
    """
    if finding.view not in _TELL:
        return finding.view != "faithfulness"
    return finding.name.endswith(("/all", "/interpretable"))


def untestable(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Findings that could not be tested, by reason, in the order in which reasons come first.

    Example:
        >>> blank = ("", "", "", "", "", "", 1, {}, None, "", None, None, float("nan"), {}, "not testable: few")
        >>> made = [Finding(name, *blank) for name in "ab"]
        >>> {why: [finding.name for finding in same] for why, same in untestable(made).items()}
        {'few': ['a', 'b']}
    """
    reasons: dict[str, list[Finding]] = {}
    for finding in findings:
        if not finding.testable:
            why = finding.note.removeprefix("not testable: ") or "no reason given"
            reasons.setdefault(why, []).append(finding)
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
        >>> from shiftlens.results.finding import Group
        >>> found = {"base": Group(1.0, 0.5, 9), "tuned": Group(1.2, float("nan"), 1), "none": Group(0.0, 0.0, 0)}
        >>> groups(Finding("", "", "", "", "", "", "", 1, found, None, "", None, None))
        ['base 1.00 ± 0.50 (9)', 'tuned 1.20 ± – (1)', 'none – (0)']
    """
    return [
        f"{name} {_two(g.mean)} ± {_two(g.std)} ({g.n})" if g.n else f"{name} – (0)"
        for name, g in finding.groups.items()
    ]


def _concepts(finding: Finding) -> str:
    """Rotation, or the share of concepts that are of a class."""
    _, kind, part = (*finding.name.split("/"), "")[:3]
    if kind == "rotation":
        pair, chance = finding.groups.values()
        return (
            f"{_DEPTH.get(part, part)}, a base concept and the tuned concept it became have a mean |cosine| of "
            f"{pair.mean:.3f}; between unrelated subspaces it would be {chance.mean:.3f} ({_p(finding)})."
        )
    what = {"interpretable": "that can be described", "task": f"that serve {part}"}.get(kind, f"about {part}")
    base, tuned = (finding.groups[role].mean for role in ("base", "tuned"))
    if not _clear(finding):
        claim = f"The share of concepts {what} shows no clear change"
    else:
        claim = f"The share of concepts {what} {'rose' if tuned > base else 'fell'}"
    ci = finding.ci and f" [{100 * finding.ci[0]:+.1f}, {100 * finding.ci[1]:+.1f}]"
    change = f"{100 * (tuned - base):+.1f}{ci or ''} points"
    return (
        f"{claim}: {base:.1%} before and {tuned:.1%} after tuning, {change}, {_p(finding)}, n = {finding.n} pairs."
    )


def _pairs(finding: Finding) -> str:
    """Heads that gained pairs with instruction verbs, against those that gained pairs with others."""
    instruction, general = (finding.groups[kind].mean for kind in ("instruction", "general"))
    where = _DEPTH.get(finding.name.rpartition("/")[2], "")
    shares = f"in {instruction:.0%} of the heads that changed, general verbs in {general:.0%}"
    if _clear(finding):
        claim = "tuning raised pairs with instruction verbs in more heads than pairs with general verbs"
    elif _opposite(finding):
        claim = "opposite to the direction tested, tuning raised pairs with general verbs in more heads"
    else:
        claim = "pairs with instruction verbs did not clearly rise in more heads than pairs with general verbs"
    return (
        f"{where}, {claim}: instruction verbs {shares}, {effect(finding)}, {_p(finding)}, n = {finding.n} verbs."
    )


_TELL: dict[str, Callable[[Finding], str]] = {"concepts": _concepts, "pairs": _pairs}
"""How findings of a view are told where the general sentence reads badly."""


def _clear(finding: Finding) -> bool:
    """Whether the difference stands, after the correction if there is one."""
    p = finding.p if finding.p_corrected is None else finding.p_corrected
    return p is not None and p < 0.05


def _p(finding: Finding) -> str:
    corrected = (
        "" if finding.p_corrected is None else f", corrected {p_value(finding.p_corrected).removeprefix('= ')}"
    )
    return f"p {p_value(finding.p)}{corrected}"


def _opposite(finding: Finding) -> bool:
    """Whether a one-sided test missed a difference that lies on the other side."""
    clear = finding.ci is not None and (finding.ci[0] > 0 or finding.ci[1] < 0)
    return clear and finding.p is not None and finding.p > 0.5


def _two(value: float) -> str:
    return f"{value:z.2f}" if math.isfinite(value) else "–"


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
