"""A finding: one question asked of the data, with everything a reviewer needs to judge the answer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
        name: stable name, e.g. ``random mask``.
        asks: what is asked, in plain words.
        statistic: the test statistic, ``None`` if not testable.
        p: its p-value, one-sided.
        effect: effect size, in the units of the finding.
        survives: whether the finding stands against it; ``None`` if not testable.
        note: what it was computed on, or why it could not be.
    """

    name: str
    asks: str
    statistic: float | None
    p: float | None
    effect: float | None
    survives: bool | None
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """One statistical result.

    Args:
        name: stable name, ``view/comparison``, e.g. ``density/base_vs_tuned``.
        view: the explanation it rests on: ``density``, ``concepts`` or ``pairs``.
        data: the data set tested.
        role: whose scores: ``base``, ``tuned`` or ``both``.
        question: what is asked, in plain words.
        null: the null hypothesis, in plain words.
        test: the test and its sidedness.
        n: number of samples that entered the test.
        groups: name of the group -> its :class:`Group`.
        effect: effect size, ``None`` if not testable.
        effect_name: what ``effect`` measures, e.g. ``Hedges g``.
        ci: 95 % bootstrap interval of ``effect``.
        p: p-value of ``test``, ``None`` if not testable.
        statistic: the test statistic.
        p_others: p-values of companion tests, by name of the test.
        note: what was left out and why, or why it is not testable.
        p_corrected: p-value corrected for every setting and data set looked at, ``None`` if nothing was corrected.
        verdict: what all of it amounts to, by the rule of :mod:`shiftlens.results.verdict`.
        controls: rival explanations and how the finding stands against each.
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

    @property
    def testable(self) -> bool:
        """Whether the test could be computed at all."""
        return self.p is not None

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


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
