"""T1 and T2 per data set and pooled, corrected for the search over settings, beside their controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from shiftlens.analyses.density.controls import ControlTest, run_controls
from shiftlens.analyses.density.grid import Grid, all_settings, grid
from shiftlens.analyses.density.questions import followed_question, tuning_question
from shiftlens.analyses.density.t1_t2 import base_vs_tuned, followed_vs_unfollowed
from shiftlens.results.finding import ALPHA, Finding
from shiftlens.results.verdict import judge
from shiftlens.scores.densities import densities
from shiftlens.scores.scored import Scored
from shiftlens.scores.settings import Settings
from shiftlens.stats.multiple_testing import holm
from shiftlens.stats.permutation import PERMUTATIONS, MaxT

POOLED = "pooled"


@dataclass(frozen=True)
class Examination:
    """T1 and T2 with corrections and controls.

    Args:
        findings: per data set, and pooled where there are several.
        sensitivity: one row per finding and setting: ``name, data, role, L, b, p, statistic, p_permutation,
            p_corrected``; missing where a setting is not testable.
        grid: the instruction scores they rest on.
    """

    findings: list[Finding]
    sensitivity: pd.DataFrame
    grid: Grid


def examine(
    records: Sequence[Scored],
    setting: Settings,
    settings: Sequence[Settings] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    controls: Sequence[ControlTest] = (),
    labels: tuple[str, str] = ("base", "tuned"),
) -> Examination:
    """All of T1 and T2 from raw importance or kept scores.

    Args:
        records: responses of base and tuned.
        setting: the headline's L, b and p.
        settings: the grid to correct for; by default :func:`~shiftlens.analyses.density.grid.all_settings`. The
            headline is added if it is not in it.
        permutations: relabellings of each permutation test.
        seed: Random seed of bootstrap intervals, relabellings and random masks.
        controls: Controls beyond :data:`shiftlens.analyses.density.controls.CONTROLS`.
        labels: What to call the two models in T2.

    Returns:
        Findings with ``p_corrected`` (max-T over the grid, then Holm over data sets; pooled: max-T alone),
        controls and verdict.

    Raises:
        ConfigError: an L that the kept scores cannot give.
        ValueError: L, b or p is out of range.
    """
    settings = all_settings() if settings is None else tuple(settings)
    scores = grid(records, settings if setting in settings else (*settings, setting))
    sample, samples = densities(records, setting), scores.samples(setting)
    datasets = list(dict.fromkeys(samples["dataset"]))
    parts = [(name, (samples["dataset"] == name).to_numpy(bool), samples) for name in datasets]
    if len(datasets) > 1:
        pooled = samples.assign(id=samples["dataset"] + "/" + samples["id"], dataset=POOLED)
        parts.append((POOLED, np.ones(len(samples), bool), pooled))
    questions = [
        (followed_question(records, "tuned"), lambda rows: followed_vs_unfollowed(rows, "tuned", seed)),
        (followed_question(records, "base"), lambda rows: followed_vs_unfollowed(rows, "base", seed)),
        (tuning_question(records), lambda rows: base_vs_tuned(rows, seed, labels)),
    ]
    findings, tables = [], []
    for _, inside, table in parts:
        for question, ask in questions:
            here = question.where(inside)
            finding, result = ask(table[inside]), here.permute(scores.scores, permutations, seed)
            place = scores.settings.index(setting)
            rivals = run_controls(here, sample, seed, controls) if finding.testable else ()
            findings.append(replace(_corrected(finding, result, place), controls=rivals))
            tables.append(_sensitivity(finding, scores, result))
    judged = [judge(finding, finding.controls) for finding in _over_data_sets(findings)]
    return Examination(judged, pd.concat(tables, ignore_index=True), scores)


def _corrected(finding: Finding, result: MaxT, place: int) -> Finding:
    """The finding with the p-values of its permutation test."""
    if not finding.testable or not result.testable[place]:
        return finding
    tested = int(result.testable.sum())
    beside = {
        "permutation, one-sided": float(result.p[place]),
        f"max-T permutation over {tested} settings": float(result.p_corrected[place]),
    }
    selection = (
        f"the best of {tested} settings has p < {ALPHA} in {result.selection:.0%} of {result.permutations} "
        "relabellings without any effect"
    )
    return replace(
        finding,
        p_corrected=float(result.p_corrected[place]),
        corrected_over=("L", "b", "p"),
        p_others={**finding.p_others, **beside},
        note="; ".join(part for part in (finding.note, selection) if part),
    )


def _over_data_sets(findings: Sequence[Finding]) -> list[Finding]:
    """Holm over the data sets that were asked the same question; the pooled answer is not one more of them."""
    corrected = list(findings)
    for name in dict.fromkeys(f.name for f in findings):
        family = [
            i for i, f in enumerate(findings) if f.name == name and f.data != POOLED and f.p_corrected is not None
        ]
        for i, finding in zip(family, holm([findings[i] for i in family], "data"), strict=True):
            corrected[i] = finding
    return corrected


def _sensitivity(finding: Finding, scores: Grid, result: MaxT) -> pd.DataFrame:
    def known(values: np.ndarray) -> pd.Series:
        return pd.Series(values, dtype="Float64").where(result.testable)

    return pd.DataFrame(
        {
            "name": finding.name,
            "data": finding.data,
            "role": finding.role,
            "L": [setting.L for setting in scores.settings],
            "b": [setting.b for setting in scores.settings],
            "p": [float(setting.p) for setting in scores.settings],
            "statistic": known(result.statistic),
            "p_permutation": known(result.p),
            "p_corrected": known(result.p_corrected),
        }
    )
