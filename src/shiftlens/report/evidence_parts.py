"""Parts of the page behind the scores: both models on both responses, token shift, faithfulness.

A part whose table is missing is left out, heading and all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shiftlens.analyses.density.figures import COLORS
from shiftlens.analyses.faithfulness.compute import prompt_means
from shiftlens.analyses.token_shift.compute import BINS, KINDS, STEP
from shiftlens.models.roles import ROLES
from shiftlens.results.analysis import Analysis

CERTAIN = 0.9
"""Response tokens of at least this probability are told apart: little is left to explain there."""

KIND_COLORS = {"unshifted": COLORS["base"], "marginal": "#5c6670", "shifted": COLORS["tuned"]}
"""What the base model would have written too has its colour."""

_COMPARED = {
    "zero": "estimate and ablation to zero",
    "mean": "estimate and ablation to the mean",
    "zero_vs_mean": "the two ablations",
}
_FIRST = 50  # response tokens shown by absolute position
_PARTS = {
    "crossed": ("density/model_effect", "density/text_effect", "density/interaction"),
    "token_shift": ("tokens/",),
    "faithfulness": ("faithfulness/",),
}


def evidence_charts(tables: Mapping[str, pd.DataFrame]) -> dict[str, go.Figure]:
    """The figures that ``tables`` allow: some of ``token_shift`` and ``faithfulness``.

    Args:
        tables: of an analysis, by name.

    Example:
        >>> evidence_charts({})
        {}
    """
    charts = {}
    if len(tables.get("token_shift_profile", ())):
        charts["token_shift"] = shift_by_position(tables["token_shift_profile"])
    if len(tables.get("faithfulness", ())):
        charts["faithfulness"] = faithfulness_boxes(tables["faithfulness"])
    return charts


def evidence_parts(analysis: Analysis) -> dict[str, Any]:
    """What the page's template shows behind the scores.

    Args:
        analysis: the run.

    Returns:
        ``charts`` (name -> figure as JSON values), ``crossed`` (one entry for each data set), ``certainty`` (role
        -> mean rank correlation of near-certain and of other tokens, ``None`` where there are none), ``certain``
        (the probability that parts them), ``shares`` (kind of token -> share) and ``findings`` (by part).

    Example:
        >>> none = pd.DataFrame()
        >>> evidence_parts(Analysis([], none, none, none, [], {}))["crossed"]
        []
    """
    tables = analysis.tables
    return {
        "charts": {name: figure.to_plotly_json() for name, figure in evidence_charts(tables).items()},
        "crossed": crossed_cells(tables["crossed"]) if "crossed" in tables else [],
        "certainty": _certainty(tables["faithfulness"]) if "faithfulness" in tables else {},
        "certain": CERTAIN,
        "shares": _shares(tables["token_shift"]) if "token_shift" in tables else {},
        "findings": {
            part: [finding for finding in analysis.findings if finding.name.startswith(names)]
            for part, names in _PARTS.items()
        },
    }


def crossed_cells(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Per data set the four cell means, and the difference that T2 tests with its two parts.

    Args:
        table: ``crossed``, see :func:`shiftlens.analyses.crossed.compute.crossed_table`.

    Returns:
        For each data set ``dataset``, ``n``, ``cells`` (model -> text -> ``score``, ``std``, ``log_likelihood``),
        and ``difference = model + text``.
    """
    found = []
    for dataset, rows in table.groupby("dataset", sort=False):
        grouped = rows.groupby(["role", "text"])
        mean, std = grouped["instruction_score"].mean(), grouped["instruction_score"].std(ddof=0)
        likely = grouped["log_likelihood"].mean()
        cells = {
            role: {
                text: {
                    "score": float(mean[role, text]),
                    "std": float(std[role, text]),
                    "log_likelihood": _known(likely[role, text]),
                }
                for text in ROLES
            }
            for role in ROLES
        }
        bb, bt, tb, tt = (cells[role][text]["score"] or 0.0 for role in ROLES for text in ROLES)
        found.append(
            {
                "dataset": str(dataset),
                "n": rows["id"].nunique(),
                "cells": cells,
                "difference": tt - bb,
                "model": (tt - bt + tb - bb) / 2,
                "text": (tt - tb + bt - bb) / 2,
            }
        )
    return found


def shift_by_position(profile: pd.DataFrame) -> go.Figure:
    """Shares of unshifted, marginal and shifted tokens over the response, as stacked bars.

    Args:
        profile: ``token_shift_profile``, see :func:`shiftlens.analyses.token_shift.compute.shift_profile`.

    Returns:
        Left by relative position, right for the first tokens; data sets are taken together.
    """
    fig = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06)
    for panel, scale in enumerate(("relative", "absolute"), start=1):
        rows = profile[profile["scale"] == scale]
        rows = rows if scale == "relative" else rows[rows["bin"] < _FIRST // STEP]
        counts = rows[list(KINDS)].mul(rows["n"], axis=0).groupby(rows["bin"]).sum()
        total = counts.sum(axis=1)
        for kind in KINDS:
            fig.add_bar(
                x=[_place(scale, int(place)) for place in counts.index],
                y=(counts[kind] / total).tolist(),
                customdata=[round(n) for n in total],
                hovertemplate=f"%{{x}}{' %' if scale == 'relative' else ''}: %{{y:.1%}} of %{{customdata}} tokens",
                name=kind,
                legendgroup=kind,
                showlegend=panel == 1,
                marker={"color": KIND_COLORS[kind]},
                row=1,
                col=panel,
            )
    # Ten labels have no room for a percent sign each: they would be drawn aslant.
    fig.update_xaxes(title="position in the response, %", tickangle=0, tickfont={"size": 11}, col=1)
    fig.update_xaxes(title="response token", col=2)
    fig.update_yaxes(title="share of tokens", col=1)
    fig.update_yaxes(range=[0, 1], tickformat=".0%")
    return _finish(fig).update_layout(barmode="stack", bargap=0.08)


def faithfulness_boxes(table: pd.DataFrame) -> go.Figure:
    """Mean rank correlation of each prompt with ablation, base beside tuned.

    Args:
        table: ``faithfulness``, see :func:`shiftlens.analyses.faithfulness.compute.faithfulness_rows`.
    """
    means = prompt_means(table)
    fig = go.Figure()
    for role in ROLES:
        rows = means[means["role"] == role]
        fig.add_box(
            x=[_COMPARED[by] for by in rows["replaced_by"]],
            y=rows["spearman"].tolist(),
            boxpoints="all",
            jitter=0.4,
            pointpos=0,
            name=role,
            marker={"color": COLORS[role], "size": 6, "symbol": "square" if role == "base" else "circle"},
            line={"color": COLORS[role]},
        )
    fig.update_yaxes(title="mean Spearman correlation", range=[-1, 1], zeroline=True)
    return _finish(fig).update_layout(boxmode="group")


def _place(scale: str, place: int) -> str:
    if scale == "relative":
        return f"{place * 100 // BINS}–{(place + 1) * 100 // BINS}"
    return f"{place * STEP + 1}–{(place + 1) * STEP}"


def _shares(table: pd.DataFrame) -> dict[str, float]:
    return {kind: float((table["kind"] == kind).mean()) for kind in KINDS}


def _certainty(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Mean correlation of estimate and ablation for near-certain and other tokens under each role."""
    table = table[table["replaced_by"] != "zero_vs_mean"]
    near = np.where(table["probability"] >= CERTAIN, "certain", "other")
    means = table["spearman"].groupby([table["role"], near]).mean()
    return {role: {kind: _known(means.get((role, kind))) for kind in ("certain", "other")} for role in ROLES}


def _known(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _finish(fig: go.Figure) -> go.Figure:
    return fig.update_layout(
        template="plotly_white",
        height=380,
        margin={"l": 60, "r": 30, "t": 50, "b": 50},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.04, "yanchor": "bottom"},
    )
