"""Holds all measurements of a model under training, and converts them to checkpoints, tables and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from shiftlens.analyses.training.curves import ALL, Point, checker, curves_table
from shiftlens.analyses.word_pairs.compute import KINDS
from shiftlens.prompts.encode import Encoded
from shiftlens.results.finding import Finding
from shiftlens.results.sentence import p_value
from shiftlens.stats.rates import RateChange, rate_change

Judged = dict[str, list[Any]]
"""For each held-out prompt, by id: whether it was followed, and the response."""
_KEPT = ("name", "n", "effect", "effect_name", "ci", "p", "p_corrected", "verdict")


@dataclass
class Found:
    """All measurements of a training.

    Args:
        steps: Parts measured at each look, by step.
        points: Points of the curves, by step, measure and group.
        probes: Rows of the table ``probes``, by step, text and prompt.
        seconds: Time in seconds, by step and part.
        rows: Raw attributions of the first look, as plain values and tensors.
        answers: Token ids of the responses at the first look, by id of the probe.
        before: Responses to the held-out prompts at the first look.
        after: Responses to the held-out prompts at the last look.
        concluded: Step whose weights the tests are about; ``None`` before the last look.
        losses: [(step, name, value)] of the training; not part of the state in checkpoints.
    """

    steps: dict[int, list[str]] = field(default_factory=dict)
    points: dict[tuple[int, str, str], Point] = field(default_factory=dict)
    probes: dict[tuple[int, str, str], dict[str, Any]] = field(default_factory=dict)
    seconds: dict[tuple[int, str], float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    before: Judged = field(default_factory=dict)
    after: Judged = field(default_factory=dict)
    concluded: int | None = None
    losses: Sequence[tuple[int, str, float]] = ()

    @property
    def change(self) -> RateChange | None:
        """Follow rate on held-out prompts before and after; ``None`` before the last look or without checks."""
        if not self.before or self.before.keys() != self.after.keys():
            return None
        before, after = ([bool(judged[name][0]) for name in self.before] for judged in (self.before, self.after))
        return rate_change(before, after)

    def curves(self) -> pd.DataFrame:
        """Return the table of all points, with the losses at the end: ``step, measure, group, value, std, n``."""
        losses = [
            Point(step, "loss", name.rpartition("/")[0] or "train", value, float("nan"), 1)
            for step, name, value in self.losses
        ]
        return curves_table([*sorted(self.points.values(), key=lambda point: point.step), *losses])

    def looks_table(self) -> pd.DataFrame:
        """Return the table of the time of each part of each look: ``step, part, seconds``."""
        rows = [(step, part, seconds) for (step, part), seconds in sorted(self.seconds.items())]
        return pd.DataFrame(rows, columns=["step", "part", "seconds"])

    def held_out_table(self, encoded: Sequence[Encoded]) -> pd.DataFrame:
        """Return the table of the held-out prompts with a check, with the responses before and after.

        Args:
            encoded: The held-out prompts.
        """
        rows = []
        for prompt in (e.prompt for e in encoded):
            if prompt.check and prompt.id in self.before and prompt.id in self.after:
                (early, first), (late, last) = self.before[prompt.id], self.after[prompt.id]
                about = (prompt.id, prompt.dataset, checker(prompt.check), prompt.text)
                rows.append((*about, early, late, first, last))
        columns = ["id", "dataset", "checker", "prompt", "before", "after", "response_before", "response_after"]
        return pd.DataFrame(rows, columns=columns).astype({"before": bool, "after": bool})

    def tell_change(self) -> str:
        """Return one line about the change of the follow rate on held-out prompts."""
        if (change := self.change) is None:
            return "shift measured; no held-out prompt has a check"
        low, high = change.difference_ci
        return (
            f"held-out prompts followed: {change.before:.0%} before, {change.after:.0%} after, "
            f"{change.difference:+.0%} [{low:+.0%}, {high:+.0%}], McNemar p {p_value(change.p)}, n = {change.n}"
        )

    def tell(self, step: int) -> str:
        """Return one line with the main numbers of a look.

        Args:
            step: Step of the look.
        """
        known = {p.measure: p for p in self.points.values() if p.step == step and p.group == ALL}

        def number(measure: str, form: str = ".2f") -> str:
            return format(known[measure].value, form)

        parts = [f"shift at step {step}"]
        if "follow_rate" in known:
            point = known["follow_rate"]
            parts.append(f"followed {round(point.value * point.n)}/{point.n}")
        if "instruction_score" in known:
            score = number("fixed_instruction_score") if "fixed_instruction_score" in known else None
            parts.append(
                f"instruction score {number('instruction_score')}"
                + ("" if score is None else f" ({score} on the first responses)")
            )
            regions = [r for r in ("instruction", "context", "other") if f"density_{r}" in known]
            parts.append("density " + ", ".join(f"{r} {number(f'density_{r}')}" for r in regions))
        if "rotation_angle" in known:
            parts.append(f"concepts turned {number('rotation_angle', '.2g')}°")
        if all(f"pairs_{kind}" in known for kind in KINDS):
            parts.append("verb pairs " + ", ".join(f"{k} {number(f'pairs_{k}', '+.1%')}" for k in KINDS))
        return "; ".join(parts)

    def record(self, findings: Sequence[Finding]) -> dict[str, Any]:
        """Return rates with intervals, findings and times, as plain values.

        Args:
            findings: Findings of the tests; empty before the last look.
        """
        seconds = dict.fromkeys(sorted(self.steps), 0.0)
        for (step, _), spent in self.seconds.items():
            seconds[step] = round(seconds.get(step, 0.0) + spent, 1)
        change = self.change
        records = [finding.to_dict() for finding in findings]
        return {
            "looks": sorted(self.steps),
            "kept": self.concluded,
            "follow_rate": None if change is None else change.to_dict(),
            "findings": [{key: record[key] for key in _KEPT} for record in records],
            "seconds": {str(step): spent for step, spent in seconds.items()},
        }

    def state(self) -> dict[str, Any]:
        """Return all measurements as plain values and tensors."""
        return {
            "steps": {step: list(parts) for step, parts in self.steps.items()},
            "points": [list(point) for point in self.points.values()],
            "probes": [dict(row) for row in self.probes.values()],
            "seconds": [[step, part, spent] for (step, part), spent in self.seconds.items()],
            "rows": list(self.rows),
            "answers": {key: list(ids) for key, ids in self.answers.items()},
            "before": dict(self.before),
            "after": dict(self.after),
            "concluded": self.concluded,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Found:
        """Restore the measurements from the values of :meth:`state`."""
        points = [Point(*values) for values in state["points"]]
        return cls(
            steps={int(step): list(parts) for step, parts in state["steps"].items()},
            points={(p.step, p.measure, p.group): p for p in points},
            probes={(row["step"], row["text"], row["id"]): dict(row) for row in state["probes"]},
            seconds={(step, part): spent for step, part, spent in state["seconds"]},
            rows=list(state["rows"]),
            answers={key: tuple(ids) for key, ids in state["answers"].items()},
            before=dict(state["before"]),
            after=dict(state["after"]),
            concluded=state["concluded"],
        )
