"""Builds the section of faithfulness."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from shiftlens.analyses.faithfulness.compute import ALL_REMOVALS, CERTAIN, certainty, correlation_metrics
from shiftlens.analyses.faithfulness.figures import faithfulness_boxes, removal_curves
from shiftlens.analyses.faithfulness.findings import (
    faithfulness_findings,
    rating_findings,
    sanity_findings,
)
from shiftlens.analyses.faithfulness.rating import RANDOM, Rating, believable, methods_table, rate
from shiftlens.analyses.faithfulness.removal_curves import curve_metrics
from shiftlens.models.roles import ROLES
from shiftlens.results.render import render
from shiftlens.results.section import Section

_LEAD = (
    "Importance is a method's account of what a response token owes to a prompt token. On a sample of prompts it "
    "is held against what happens: the embedding of one token at a time is replaced, by zero or by the mean "
    "embedding, and so are those of the most, or the least, important tokens together. How far the removals "
    "agree with each other is the ceiling, random importance the floor. Where a method stays at the floor, read "
    "its maps as sensitivity to small changes at best, not as what the response would lose without a token; and "
    "if base and tuned differ here, a difference in their scores may be one of the method alone."
)
SANITY = "random layers"
"""Metric of the sanity check."""


@dataclass(frozen=True)
class Measured:
    """What was measured on the sample, the same columns ``role, dataset, id`` in each table.

    Args:
        correlations: Rows of :func:`~shiftlens.analyses.faithfulness.compute.faithfulness_rows`.
        points: Rows of :func:`~shiftlens.analyses.faithfulness.removal_curves.curve_points`.
        sanity: ``method, at, value``: mean rank correlation of an attribution with the one after the share ``at``
            of the layers was randomised.
    """

    correlations: pd.DataFrame
    points: pd.DataFrame
    sanity: pd.DataFrame


def faithfulness_section(
    measured: Measured,
    words: Mapping[str, str],
    candidates: Sequence[str],
    removals: Collection[str] = (),
    seed: int = 0,
) -> Section:
    """Build the section: four tables named ``faithfulness*``, the tests, two figures and the table of methods.

    Args:
        measured: What was measured.
        words: Label of each method, random importance among them -> what a finding calls it.
        candidates: Labels of the methods that are estimates, neither exact removal nor random.
        removals: Labels of the methods that are one of the removals themselves.
        seed: Random seed for the bootstrap intervals.
    """
    sanity = measured.sanity.assign(scope="token", metric=SANITY, measure="")
    scores = [correlation_metrics(measured.correlations), curve_metrics(measured.points), sanity]
    ratings = rate(pd.concat([part for part in scores if len(part)], ignore_index=True), words, seed)
    methods = methods_table(ratings)
    believed = believable(methods, candidates)
    correlations = measured.correlations
    agreement = faithfulness_findings(correlations, words, removals, seed)
    deepest = measured.sanity[measured.sanity["at"] == "1"]
    further = [
        *rating_findings(ratings, words, seed),
        *sanity_findings(deepest, words, ", ".join(correlations["dataset"].unique()), seed),
    ]
    tested = Section([*agreement, *further])
    return Section(
        findings=tested.findings,
        tables={
            "faithfulness": correlations,
            "faithfulness_curves": measured.points,
            "faithfulness_sanity": measured.sanity,
            "faithfulness_methods": methods,
        },
        title="How far the importance can be trusted",
        lead=_LEAD,
        figures={
            "faithfulness_curves": removal_curves(measured.points, words),
            "faithfulness": faithfulness_boxes(correlations),
        },
        html=render(
            Path(__file__).with_name("section.html.j2"),
            believed=believed and words[believed],
            candidates=[words[label] for label in candidates],
            columns=_columns(methods),
            ratings={role: _lines(role, ratings, words, methods) for role in ROLES},
            certainty=_certainty(correlations, words),
            certain=CERTAIN,
            findings=tested.findings[: len(agreement)],
        ),
        rank=70,
    )


def _columns(methods: pd.DataFrame) -> list[dict[str, Any]]:
    """List the columns of the page's table: name, title, and what each shows: metric, at, scope, measure."""
    replaced = methods.loc[methods["metric"] == "correlation", "at"].unique()
    whole, token = ("response", "change"), ("token", "change")
    columns = [
        *((f"ρ {by} ↑", "rank correlation with this removal", "correlation", by, "token", "")
          for by in replaced if by != ALL_REMOVALS),
        ("deletion ↓", "area, whole response", "deletion", "", *whole),
        ("insertion ↑", "area, whole response", "insertion", "", *whole),
        ("comprehensiveness ↑", "mean over the shares, whole response", "comprehensiveness", "mean", *whole),
        ("sufficiency ↓", "mean over the shares, whole response", "sufficiency", "mean", *whole),
        ("deletion, by token ↓", "area, mean over single response tokens", "deletion", "", *token),
        ("insertion, by token ↑", "area, mean over single response tokens", "insertion", "", *token),
        ("random layers", "rank correlation with the attribution by random layers", SANITY, "1", "token", ""),
    ]  # fmt: skip
    return [{"name": name, "title": title, "key": tuple(key)} for name, title, *key in columns]


def _lines(
    role: str, ratings: Sequence[Rating], words: Mapping[str, str], methods: pd.DataFrame
) -> list[dict[str, Any]]:
    """Gather the cells of one model's table, method by method, random importance last."""
    by_key = {(one.method, one.metric, one.at, one.scope, one.measure): one for one in ratings if one.role == role}
    order = sorted(words, key=lambda method: method == RANDOM)
    return [
        {"words": words[method], "cells": [_cell(by_key.get((method, *c["key"]))) for c in _columns(methods)]}
        for method in order
    ]


def _cell(one: Rating | None) -> dict[str, Any] | None:
    if one is None or one.mean.effect is None:
        return None
    low, high = one.mean.ci or (None, None)
    found = one.finding
    gains = found is not None and found.stands and found.effect is not None and found.effect > 0
    return {"mean": one.mean.effect, "low": low, "high": high, "p": found and found.p_decisive, "stands": gains}


def _certainty(correlations: pd.DataFrame, words: Mapping[str, str]) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the mean correlation at near-certain and at other tokens, by role and words of a method."""
    means = certainty(correlations).set_index(["role", "method", "certain"])["spearman"].to_dict()
    return {
        (role, words[method]): (means[role, method, True], means[role, method, False])
        for role in ROLES
        for method in words
        if method != RANDOM and {(role, method, True), (role, method, False)} <= means.keys()
    }
