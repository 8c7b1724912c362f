"""Tests what tuning changed since the first look, and defines the result of a measured tuning run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from shiftlens.analyses.density.compute import POOLED, examine
from shiftlens.analyses.density.t1_t2 import T2
from shiftlens.analyses.training.curves import SCORES
from shiftlens.results.finding import Finding, Group
from shiftlens.scores.samples import Measured, samples_table
from shiftlens.scores.scored import scored
from shiftlens.scores.settings import Settings
from shiftlens.stats.multiple_testing import holm
from shiftlens.stats.one_sample import mean_of
from shiftlens.stats.rates import RateChange
from shiftlens.stats.result import Comparison

FIRST_LOOKS = 4
"""Smallest number of looks for a trend; a rank correlation over fewer looks means little."""
_ABOUT = {"own": "its own responses", "fixed": "the responses of the first look"}
_NAMES = {
    "instruction_score": "instruction score",
    "density_instruction": "density of instruction tokens",
    "density_context": "density of context tokens",
    "density_other": "density of other tokens",
}


@dataclass(frozen=True)
class Training:
    """All results of a measured tuning run.

    Args:
        findings: Findings of all tests.
        curves: ``step, measure, group, value, std, n``, see :mod:`shiftlens.analyses.training.curves`.
        probes: One row per look, prompt and text: ``step, text, id, dataset, instruction_score,
            density_instruction, density_context, density_other, followed, n_response, prompt, response``.
        held_out: One row for each held-out prompt with a check: ``id, dataset, checker, prompt, before, after,
            response_before, response_after``.
        seconds: ``step, part, seconds`` of each look.
        change: Change of the follow rate on ``held_out``; ``None`` if no prompt has a check.
        provenance: Model, data and settings that produced the results.
        tables: Further tables, by name.
    """

    findings: Sequence[Finding]
    curves: pd.DataFrame
    probes: pd.DataFrame
    held_out: pd.DataFrame
    seconds: pd.DataFrame
    change: RateChange | None
    provenance: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def behaviour_findings(
    change: RateChange | None,
    before: Sequence[Measured],
    after: Mapping[str, Sequence[Measured]],
    probes: pd.DataFrame,
    settings: Settings,
    kept: int | None,
    seed: int = 0,
) -> list[Finding]:
    """Run every test of the model's behaviour that compares the last look with the first.

    Args:
        change: Change of the follow rate on held-out prompts; ``None`` leaves out its test.
        before: Responses to the probes at the first look, with their scores.
        after: Responses to the probes at the last look with their scores, by text (``own``, ``fixed``); empty
            leaves out the tests on scores.
        probes: Table ``probes`` of :class:`Training`.
        settings: Values of L, b and p.
        kept: Step of the last look.
        seed: Random seed for the bootstrap, the relabellings and the random masks.
    """
    findings = [] if change is None else [follow_finding(change, _data(probes) if len(probes) else "held out")]
    if after and kept is not None:
        findings += [score_finding(before, last, settings, text, seed) for text, last in after.items()]
        findings += density_findings(probes, (int(probes["step"].min()), kept), seed)
        findings += trend_findings(probes, seed)
    return findings


def follow_finding(change: RateChange, data: str) -> Finding:
    """Test with McNemar's exact test whether tuning changed how often held-out instructions are followed.

    Args:
        change: Follow rates before and after, and their difference.
        data: Name of the data set.
    """
    groups = {"before": change.before, "after": change.after}
    note = f"{change.gained} prompts followed only after, {change.lost} only before"
    return Finding(
        name="tuning/follow_rate",
        view="tuning",
        data=data,
        role="both",
        question="Did tuning change how often held-out instructions are followed?",
        null="a held-out prompt is as likely to be followed after tuning as before",
        test="McNemar exact, two-sided",
        n=change.n,
        groups={name: Group(rate, float(np.sqrt(rate * (1 - rate))), change.n) for name, rate in groups.items()},
        effect=change.difference,
        effect_name="difference of rates",
        ci=change.difference_ci,
        p=change.p,
        note=note,
        measure="follow rate on held-out prompts",
        unit="%",
    )


def score_finding(
    before: Sequence[Measured], after: Sequence[Measured], settings: Settings, text: str, seed: int = 0
) -> Finding:
    """Test whether tuning raised the instruction score of the probes.

    The test is the paper's T2, with its corrections and controls.

    Args:
        before: Responses to the probes at the first look, with their scores.
        after: Responses to the probes at the last look, with their scores.
        settings: Values of L, b and p.
        text: Kind of responses in ``after``: ``own``, or ``fixed`` from the first look.
        seed: Random seed for the bootstrap, the relabellings and the random masks.
    """
    both = [replace(m, role=role) for role, measured in (("base", before), ("tuned", after)) for m in measured]
    records = scored(both, samples_table(both))
    asked = [f for f in examine(records, settings, seed=seed, labels=("before", "after")).findings if f.name == T2]
    finding = next((f for f in asked if f.data == POOLED), asked[0])
    return replace(
        finding,
        name=f"tuning/{text}/instruction_score",
        view="tuning",
        question=f"Did tuning raise the weight of instruction words? ({_ABOUT[text]})",
        null="mean difference of instruction score, after minus before on the same prompts, is <= 0",
        measure=f"{finding.measure} on {_ABOUT[text]}",
    )


def density_findings(probes: pd.DataFrame, steps: tuple[int, int], seed: int = 0) -> list[Finding]:
    """Test whether the density of each region changed between two looks.

    The tests are paired and two-sided; p-values are corrected over all regions and responses by Holm's method.

    Args:
        probes: Table ``probes`` of :class:`Training`.
        steps: Steps of the first and the last look.
        seed: Random seed for the bootstrap.
    """
    first = probes[(probes["step"] == steps[0]) & (probes["text"] == "own")].set_index("id")
    findings = []
    for text in dict.fromkeys(probes.loc[probes["step"] == steps[1], "text"]):
        last = probes[(probes["step"] == steps[1]) & (probes["text"] == text)].set_index("id").reindex(first.index)
        for measure in SCORES[1:]:
            values = pd.DataFrame({"before": first[measure], "after": last[measure]}).astype(float).dropna()
            change = (values["after"] - values["before"]).to_numpy()
            findings.append(
                mean_of(change, seed).finding(
                    name=f"tuning/{text}/{measure}",
                    view="tuning",
                    measure=f"{_NAMES[measure]} on {_ABOUT[text]}",
                    headline=False,
                    data=_data(probes),
                    role="both",
                    question=f"Did the {_NAMES[measure]} change? ({_ABOUT[text]})",
                    null="mean difference, after minus before on the same prompts, is 0",
                    test="paired t, two-sided",
                    groups={name: values[name].to_numpy() for name in ("before", "after")},
                    n=len(values),
                    effect_name="mean difference",
                    notes=["of the prompts that have such tokens"] if len(values) < len(first) else [],
                )
            )
    return holm(findings, "regions and responses")


def trend_findings(probes: pd.DataFrame, seed: int = 0) -> list[Finding]:
    """Test whether the instruction score rose or fell steadily, with Spearman's rho of score and step.

    The unit is the prompt, with its rho over all looks; a prompt whose score never changes has rho 0.

    Args:
        probes: Table ``probes`` of :class:`Training`.
        seed: Random seed for the bootstrap.
    """
    findings = []
    for text in ("own", "fixed"):
        rows = probes[(probes["text"] == text) | (probes["step"] == probes["step"].min())]
        if not (probes["text"] == text).any():
            continue
        wide = rows.drop_duplicates(["step", "id"]).pivot(index="id", columns="step", values="instruction_score")
        scores = wide.dropna().to_numpy(float)
        if wide.shape[1] < FIRST_LOOKS:
            result = Comparison(why_not=f"needs at least {FIRST_LOOKS} looks, has {wide.shape[1]}")
            rho = np.zeros(0)
        else:
            rho = np.array([_rho(row) for row in scores])
            result = mean_of(rho, seed)
        findings.append(
            result.finding(
                name=f"tuning/{text}/trend",
                view="tuning",
                measure="trend of the instruction score",
                headline=False,
                data=_data(probes),
                role="both",
                question=f"Did the instruction score rise or fall steadily while tuning? ({_ABOUT[text]})",
                null="mean over prompts of Spearman's rho between step and score is 0",
                test="one-sample t over prompts, two-sided",
                groups={"rho": rho},
                n=len(rho),
                effect_name="mean Spearman rho",
                notes=[f"{wide.shape[1]} looks"] if len(rho) else [],
            )
        )
    return holm(findings, "responses")


def _rho(scores: np.ndarray) -> float:
    if not np.ptp(scores):
        return 0.0
    return float(stats.spearmanr(np.arange(len(scores)), scores).statistic)


def _data(probes: pd.DataFrame) -> str:
    names = list(dict.fromkeys(probes["dataset"].astype(str)))
    return names[0] if len(names) == 1 else POOLED


def probe_rows(step: int, text: str, measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return the rows that one look adds to the table ``probes`` of :class:`Training`, as plain values.

    Args:
        step: Number of optimizer steps done.
        text: Kind of responses, ``own`` or ``fixed``.
        measured: Responses with their scores.
    """
    table = samples_table(measured)
    columns = ["id", "dataset", *SCORES, "followed", "n_response", "prompt", "response"]
    rows = table[columns].astype(object).where(table[columns].notna(), None).to_dict("records")
    plain = ({str(k): v.item() if isinstance(v, np.generic) else v for k, v in row.items()} for row in rows)
    return [{"step": step, "text": text, **row} for row in plain]


def probes_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows of :func:`probe_rows` as a table."""
    columns = ["step", "text", "id", "dataset", *SCORES, "followed", "n_response", "prompt", "response"]
    table = pd.DataFrame(list(rows), columns=columns)
    return table.astype({"followed": "boolean", **dict.fromkeys(SCORES, "float64")})
