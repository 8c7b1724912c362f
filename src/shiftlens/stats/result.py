"""Result of one statistical test, and its conversion to a finding or a control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from shiftlens.results.finding import ALPHA, Control, Finding, Group

Values = Float[np.ndarray, "_"]  # groups may differ in size


@dataclass(frozen=True)
class Comparison:
    """Numbers of one statistical test; all ``None`` where it could not be computed.

    Args:
        p: p-value.
        statistic: Test statistic.
        effect: Effect size.
        ci: 95 % interval of the effect.
        p_others: p-values of companion tests, by name of the test.
        why_not: Why there are no numbers; ``""`` if there are.
    """

    p: float | None = None
    statistic: float | None = None
    effect: float | None = None
    ci: tuple[float, float] | None = None
    p_others: Mapping[str, float] = field(default_factory=dict)
    why_not: str = ""

    def finding(
        self,
        *,
        name: str,
        view: str,
        data: str,
        role: str,
        question: str,
        null: str,
        test: str,
        measure: str,
        groups: Mapping[str, Values],
        n: int,
        effect_name: str = "Hedges g",
        notes: Sequence[str] = (),
        expected: str | None = None,
        unit: str = "",
        headline: bool = True,
    ) -> Finding:
        """Convert the result to a finding.

        Args:
            name: Stable name, ``view/comparison``.
            view: Name of the analysis that makes the finding.
            data: Data set tested.
            role: Model whose scores were tested: ``base``, ``tuned`` or ``both``.
            question: The question, in plain words.
            null: Null hypothesis, in plain words.
            test: The test and its sidedness.
            measure: Name of the compared quantity, as used in sentences.
            groups: Name of each group -> [samples] its numbers.
            n: Number of samples in the test.
            effect_name: Name of the effect size.
            notes: Remarks, e.g. what was left out and why; empty strings are dropped.
            expected: Group that a one-sided test expects to be higher; ``None`` for a two-sided test.
            unit: ``"%"`` where the groups hold shares.
            headline: Whether the finding is a main result of its analysis.

        Example:
            >>> fields = {"data": "d", "role": "both", "question": "?", "null": "0", "test": "t", "n": 1}
            >>> fields |= {"measure": "score", "view": "x"}
            >>> finding = Comparison(why_not="one prompt").finding(name="x/y", groups={"a": np.ones(1)}, **fields)
            >>> finding.groups["a"].mean, finding.p, finding.why_not
            (1.0, None, 'one prompt')
        """
        return Finding(
            name=name,
            view=view,
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
            note="; ".join(note for note in notes if note),
            why_not=self.why_not,
            measure=measure,
            unit=unit,
            expected=expected,
            headline=headline,
        )

    def control(self, name: str, asks: str, note: str = "", specific: bool = False) -> Control:
        """Convert the result to a control; the headline survives the control if ``p <= 0.05``.

        Args:
            name: Stable name of the control.
            asks: The question, in plain words.
            note: What the control was computed on.
            specific: Whether the control tests that the effect concerns instruction words and not any words.
        """
        survives = None if self.p is None else self.p <= ALPHA
        return Control(name, asks, self.statistic, self.p, self.effect, survives, note, self.why_not, specific)


def group(values: Values) -> Group:
    """Compute the mean, standard deviation (ddof=0) and size of a group; all zero for an empty group."""
    if len(values) == 0:
        return Group(0.0, 0.0, 0)
    return Group(float(np.mean(values)), float(np.std(values)), len(values))
