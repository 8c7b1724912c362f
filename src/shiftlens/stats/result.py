"""The numbers of one comparison, and what is made of them: a finding, or a control of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from shiftlens.results.finding import Control, Finding, Group

ALPHA = 0.05
"""Every p-value here is held against this level."""
Values = Float[np.ndarray, "_"]  # groups may differ in size


@dataclass(frozen=True)
class Comparison:
    """Numbers of a :class:`~shiftlens.results.finding.Finding`; all ``None`` where not testable."""

    p: float | None = None
    statistic: float | None = None
    effect: float | None = None
    ci: tuple[float, float] | None = None
    p_others: dict[str, float] = field(default_factory=dict)
    why_not: str = ""

    def finding(
        self,
        *,
        name: str,
        data: str,
        role: str,
        question: str,
        null: str,
        test: str,
        groups: Mapping[str, Values],
        n: int,
        effect_name: str = "Hedges g",
        notes: Sequence[str] = (),
    ) -> Finding:
        """These numbers as a finding; the view is the first part of the name, and what is not testable says why.

        Args:
            name: ``view/comparison``.
            data: the data set tested.
            role: whose scores: ``base``, ``tuned`` or ``both``.
            question: what is asked, in plain words.
            null: the null hypothesis, in plain words.
            test: the test and its sidedness.
            groups: name of the group -> [samples] its numbers.
            n: number of samples that entered the test.
            effect_name: what the effect measures.
            notes: what was left out and why; empty ones are dropped.

        Example:
            >>> asked = {"data": "d", "role": "both", "question": "?", "null": "0", "test": "t", "n": 1}
            >>> found = Comparison(why_not="one prompt").finding(name="x/y", groups={"a": np.ones(1)}, **asked)
            >>> found.view, found.groups["a"].mean, found.p, found.note
            ('x', 1.0, None, 'not testable: one prompt')
        """
        return Finding(
            name=name,
            view=name.split("/")[0],
            data=data,
            role=role,
            question=question,
            null=null,
            test=test,
            n=n,
            groups={key: group(values) for key, values in groups.items()},
            effect=self.effect,
            effect_name=effect_name,
            ci=self.ci,
            p=self.p,
            statistic=self.statistic,
            p_others=self.p_others,
            note=self._note(notes),
        )

    def control(self, name: str, asks: str, note: str = "") -> Control:
        """These numbers as a control, survived where ``p <= 0.05``."""
        survives = None if self.p is None else self.p <= ALPHA
        return Control(name, asks, self.statistic, self.p, self.effect, survives, self._note([note]))

    def _note(self, notes: Sequence[str]) -> str:
        why_not = f"not testable: {self.why_not}" if self.why_not else ""
        return "; ".join(part for part in (why_not, *notes) if part)


def group(values: Values) -> Group:
    """Mean, standard deviation (ddof=0) and size of a group; zeros for an empty one."""
    if len(values) == 0:
        return Group(0.0, 0.0, 0)
    return Group(float(np.mean(values)), float(np.std(values)), len(values))
