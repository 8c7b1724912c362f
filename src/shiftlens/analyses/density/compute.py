"""Runs T1 and T2 per data set and pooled, with correction for the search over settings, and their controls."""

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
from shiftlens.results.method_agreement import GRADIENT, Named, removal_control
from shiftlens.results.verdict import judge
from shiftlens.scores.densities import densities
from shiftlens.scores.scored import Scored
from shiftlens.scores.settings import Settings
from shiftlens.stats.multiple_testing import holm
from shiftlens.stats.permutation import PERMUTATIONS, MaxT

POOLED = "pooled"


@dataclass(frozen=True)
class Examination:
    """Results of T1 and T2 with corrections and controls.

    Args:
        findings: Findings per data set, and pooled if there are several data sets.
        sensitivity: Table with one row per finding and setting: ``name, data, role, L, b, p, statistic,
            p_permutation, p_corrected``; the numbers are missing if a setting is not testable.
        grid: Instruction scores under all settings.
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
    others: Sequence[Grid] = (),
    method: Named = GRADIENT,
) -> Examination:
    """Run T1 and T2, their corrections and their controls on raw importance or kept scores.

    Args:
        records: Responses of base and tuned.
        setting: L, b and p of the headline.
        settings: Grid to correct for; ``None`` for :func:`~shiftlens.analyses.density.grid.all_settings`. The
            headline's setting is added if the grid lacks it.
        permutations: Number of relabellings of each permutation test.
        seed: Random seed for bootstrap intervals, relabellings and random masks.
        controls: Controls to run in addition to :data:`shiftlens.analyses.density.controls.CONTROLS`.
        labels: Names of the base and the tuned group in T2.
        others: Grids of the same responses under other methods of attribution, to correct for too.
        method: Method of attribution that made the importance.

    Returns:
        The findings with ``p_corrected`` (max-T over the grid, then Holm over data sets; for pooled data max-T
        alone), controls and verdict; the table of all settings; the grid.

    Raises:
        ConfigError: The kept scores cannot give one of the values of L.
        ValueError: L, b or p is out of range.
    """
    settings = all_settings() if settings is None else tuple(settings)
    scores = grid(records, settings if setting in settings else (*settings, setting))
    sample, samples = densities(records, setting), scores.samples(setting)
    datasets = list(dict.fromkeys(samples["dataset"]))
    subsets = [(name, (samples["dataset"] == name).to_numpy(bool), samples) for name in datasets]
    if len(datasets) > 1:
        pooled = samples.assign(id=samples["dataset"] + "/" + samples["id"], dataset=POOLED)
        subsets.append((POOLED, np.ones(len(samples), bool), pooled))
    questions = [
        (followed_question(records, "tuned"), lambda rows: followed_vs_unfollowed(rows, "tuned", seed)),
        (followed_question(records, "base"), lambda rows: followed_vs_unfollowed(rows, "base", seed)),
        (tuning_question(records), lambda rows: base_vs_tuned(rows, seed, labels)),
    ]
    searched = np.concatenate([scores.scores, *(other.scores for other in others)])
    measure = f"instruction score by {method.words}"
    findings, tables = [], []
    for _, inside, table in subsets:
        for question, ask in questions:
            here = question.where(inside)
            finding, result = ask(table[inside]), here.permute(searched, permutations, seed)
            cell = scores.settings.index(setting)
            answers = run_controls(here, sample, seed, controls) if finding.testable else ()
            if finding.testable and not method.exact:
                answers = (*answers, removal_control(finding, None))
            corrected = _corrected(finding, result, cell, ("L", "b", "p", *(["method"] if others else [])))
            findings.append(replace(corrected, controls=answers, method=method.label, measure=measure))
            tables.append(_sensitivity(finding, scores, result))
    judged = [judge(finding, finding.controls) for finding in _over_data_sets(findings)]
    return Examination(judged, pd.concat(tables, ignore_index=True), scores)


def _corrected(finding: Finding, result: MaxT, cell: int, over: tuple[str, ...]) -> Finding:
    """Add the p-values of the permutation test to the finding.

    Args:
        finding: T1 or T2 at the headline's setting.
        result: Permutation test over the grid.
        cell: Index of the headline's setting in the grid.
        over: What the grid varies.
    """
    if not finding.testable or not result.testable[cell]:
        return finding
    tested = int(result.testable.sum())
    companions = {
        "permutation, one-sided": float(result.p[cell]),
        f"max-T permutation over {tested} settings": float(result.p_corrected[cell]),
    }
    selection = (
        f"the best of {tested} settings has p < {ALPHA} in {result.selection:.0%} of {result.permutations} "
        "relabellings without any effect"
    )
    return replace(
        finding,
        p_corrected=float(result.p_corrected[cell]),
        corrected_over=over,
        p_others={**finding.p_others, **companions},
        note="; ".join(note for note in (finding.note, selection) if note),
    )


def _over_data_sets(findings: Sequence[Finding]) -> list[Finding]:
    """Correct each question by Holm over its data sets; the pooled finding does not count as a data set."""
    corrected = list(findings)
    for name in dict.fromkeys(f.name for f in findings):
        family = [
            i for i, f in enumerate(findings) if f.name == name and f.data != POOLED and f.p_corrected is not None
        ]
        for i, finding in zip(family, holm([findings[i] for i in family], "data"), strict=True):
            corrected[i] = finding
    return corrected


def _sensitivity(finding: Finding, scores: Grid, result: MaxT) -> pd.DataFrame:
    own = len(scores.settings)  # the grids of other methods come behind

    def where_testable(values: np.ndarray) -> pd.Series:
        return pd.Series(values[:own], dtype="Float64").where(result.testable[:own])

    return pd.DataFrame(
        {
            "name": finding.name,
            "data": finding.data,
            "role": finding.role,
            "L": [setting.L for setting in scores.settings],
            "b": [setting.b for setting in scores.settings],
            "p": [float(setting.p) for setting in scores.settings],
            "statistic": where_testable(result.statistic),
            "p_permutation": where_testable(result.p),
            "p_corrected": where_testable(result.p_corrected),
        }
    )
