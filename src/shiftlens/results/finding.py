"""A finding: one question asked of the data, with everything a reviewer needs to judge the answer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ALPHA = 0.05
"""Significance level of every test."""


@dataclass(frozen=True)
class Group:
    """Summary of one group of samples. ``std`` has ddof=0, as the paper reports it."""

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class Control:
    """A rival explanation of a finding, put to the test.

    Args:
        name: Stable name, e.g. ``random mask``.
        asks: What is asked, in plain words.
        statistic: Test statistic, ``None`` if not testable.
        p: Its p-value, one-sided.
        effect: Effect size, in the units of the finding.
        survives: Whether the finding stands against it; ``None`` if not testable.
        note: What it was computed on.
        why_not: Why it could not be tested; ``""`` if it was.
        specific: Whether it asks if the effect is about instruction words at all. A finding with rivals needs
            at least one such control that could be tested to be *supported*.
        removal: Whether it asks the same question under exact removal. A finding that it does not confirm holds
            under its own method only.
    """

    name: str
    asks: str
    statistic: float | None
    p: float | None
    effect: float | None
    survives: bool | None
    note: str = ""
    why_not: str = ""
    specific: bool = False
    removal: bool = False


@dataclass(frozen=True)
class Finding:
    """One statistical result.

    Args:
        name: Stable name, ``view/comparison``, e.g. ``density/base_vs_tuned``. Nothing is read off it.
        view: Analysis that asked: ``density``, ``concepts``, ``pairs``, ``tokens``, ``shift``, ``parting``,
            ``faithfulness``, ``tuning``, or the name of one of yours.
        data: Data set tested.
        role: Whose scores: ``base``, ``tuned`` or ``both``.
        question: What is asked, in plain words.
        null: Null hypothesis, in plain words.
        test: The test and its sidedness.
        n: Number of samples that entered the test.
        groups: Name of each group and its :class:`Group`.
        effect: Effect size, ``None`` if not testable.
        effect_name: What ``effect`` measures, e.g. ``Hedges g``.
        ci: 95 % interval of ``effect``.
        p: p-value of ``test``, ``None`` if not testable.
        statistic: Test statistic.
        p_others: p-values of companion tests, by name of the test; for the eye, nothing is decided by them.
        note: What was left out and why.
        p_corrected: p-value corrected for everything in ``corrected_over``; ``None`` if nothing was corrected.
        verdict: What all of it amounts to, by the rule of :func:`shiftlens.results.verdict.judge`.
        controls: Rival explanations and how the finding stands against each.
        why_not: Why the question could not be tested; ``""`` if it could.
        measure: What a sentence calls the quantity compared, e.g. ``instruction score``.
        unit: ``"%"`` where the groups hold shares that a sentence gives in percent, else ``""``.
        expected: Group that a one-sided test expects to be higher; ``None`` for a two-sided test.
        corrected_over: What ``p_corrected`` accounts for, e.g. ``("L", "b", "p", "data")``.
        headline: Whether the finding answers for its whole analysis; the others are details. A matter of the
            question asked, never of the answer.
        method: Label of the method of attribution; ``""`` where none is involved.
        methods: Labels of all methods under which the question was asked.
        holds_under: Those of them under which the null hypothesis is rejected for an effect on the same side.
    """

    name: str
    view: str
    data: str
    role: str
    question: str
    null: str
    test: str
    n: int
    groups: Mapping[str, Group]
    effect: float | None
    effect_name: str
    ci: tuple[float, float] | None
    p: float | None
    statistic: float | None = None
    p_others: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    p_corrected: float | None = None
    verdict: str = ""
    controls: tuple[Control, ...] = ()
    why_not: str = ""
    measure: str = ""
    unit: str = ""
    expected: str | None = None
    corrected_over: tuple[str, ...] = ()
    headline: bool = True
    method: str = ""
    methods: tuple[str, ...] = ()
    holds_under: tuple[str, ...] = ()

    @property
    def testable(self) -> bool:
        """Whether the test could be computed at all."""
        return self.p is not None

    @property
    def p_decisive(self) -> float | None:
        """The p-value that decides: the corrected one where there is one, else the plain one."""
        return self.p if self.p_corrected is None else self.p_corrected

    @property
    def stands(self) -> bool:
        """Whether the null hypothesis is rejected: one rule for verdict, sentence, page, terminal and loggers.

        The decisive p-value is at most 0.05 and, in a one-sided test, the effect lies on the side that was tested.

        Example:
            >>> head = ("x/y", "x", "d", "both", "?", "0", "t")
            >>> made = Finding(*head, 9, {}, 0.5, "g", None, 0.02, p_corrected=0.31)
            >>> made.stands, dataclasses.replace(made, p_corrected=0.05).stands
            (False, True)
        """
        return rejected(self.p_decisive, self.effect, self.expected is not None)

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values; numbers that are not finite become ``None``.

        Example:
            >>> g = {"a": Group(1.0, 0.0, 1)}
            >>> f = Finding("x/y", "x", "d", "both", "?", "0", "t", 1, g, None, "g", None, None, float("nan"))
            >>> f.to_dict()["statistic"] is None
            True
        """
        values: dict[str, Any] = _finite(dataclasses.asdict(self))
        return values


def rejected(p: float | None, effect: float | None, one_sided: bool) -> bool:
    """Whether a null hypothesis is rejected: p at most 0.05 and, in a one-sided test, an effect above 0.

    Args:
        p: p-value that decides; ``None`` or NaN if not testable.
        effect: Effect size, positive on the side that a one-sided test asks about.
        one_sided: Whether the test asks in one direction only.

    Example:
        >>> rejected(0.05, -0.2, one_sided=False), rejected(0.05, -0.2, one_sided=True), rejected(None, 1.0, True)
        (True, False, False)
    """
    if p is None or not p <= ALPHA:
        return False
    return bool(not one_sided or (effect is not None and effect > 0))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
