"""Builds the section of the crossed comparison: a table of the four cells, and the split of their difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shiftlens.analyses.crossed.compute import crossed_table, split
from shiftlens.analyses.crossed.figures import crossed_lines
from shiftlens.analyses.crossed.findings import crossed_findings
from shiftlens.models.roles import ROLES
from shiftlens.results.render import render
from shiftlens.results.section import Section
from shiftlens.scores.samples import Measured

_LEAD = (
    "Each model explained both responses. Mean instruction score ± standard deviation over prompts; below it how "
    "likely the response is under the model, as mean log probability of a token in nats."
)


def crossed_section(measured: Sequence[Measured], seed: int = 0) -> Section:
    """Build the section with table, tests and figure of all four combinations of model and response.

    Args:
        measured: Measured responses: every prompt under both models and both texts.
        seed: Random seed for the bootstrap intervals.
    """
    table = crossed_table(measured)
    findings = crossed_findings(table, seed)
    section = Section(findings)  # Section adds the verdicts that the HTML shows
    return Section(
        findings=section.findings,
        tables={"crossed": table},
        title="Did the model change, or the text?",
        lead=_LEAD,
        figures={"crossed": crossed_lines(table)},
        html=render(
            Path(__file__).with_name("section.html.j2"), parts=crossed_cells(table), roles=ROLES,
            findings=section.findings,
        ),
        rank=50,
    )  # fmt: skip


def crossed_cells(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Compute the four cell means of each data set, and the difference that T2 tests with its two effects.

    Args:
        table: Table from :func:`~shiftlens.analyses.crossed.compute.crossed_table`.

    Returns:
        One dictionary per data set: ``dataset``, ``n``, ``cells`` (model -> text -> ``score``, ``std``,
        ``log_likelihood``), ``difference``, its parts ``model`` and ``text``, and ``interaction``.
    """
    return [_cells(str(dataset), rows) for dataset, rows in table.groupby("dataset", sort=False)]


def _cells(dataset: str, rows: pd.DataFrame) -> dict[str, Any]:
    grouped = rows.groupby(["role", "text"])
    mean, std = grouped["instruction_score"].mean(), grouped["instruction_score"].std(ddof=0)
    log_likelihood = grouped["log_likelihood"].mean()
    cells: dict[str, dict[str, dict[str, Any]]] = {
        role: {
            text: {
                "score": float(mean[role, text]),
                "std": float(std[role, text]),
                "log_likelihood": (
                    None if pd.isna(log_likelihood[role, text]) else float(log_likelihood[role, text])
                ),
            }
            for text in ROLES
        }
        for role in ROLES
    }
    scores = {(role, text): np.array([cells[role][text]["score"]]) for role in ROLES for text in ROLES}
    effects = {name: float(value[0]) for name, value in split(scores).items()}
    difference = cells["tuned"]["tuned"]["score"] - cells["base"]["base"]["score"]
    return {"dataset": dataset, "n": rows["id"].nunique(), "cells": cells, "difference": difference, **effects}
