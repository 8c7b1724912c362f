"""Draws the faithfulness of each method: a point per prompt, and the curves of deletion and insertion."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shiftlens.analyses.faithfulness.compute import ALL_REMOVALS, prompt_means
from shiftlens.analyses.faithfulness.rating import RANDOM
from shiftlens.analyses.faithfulness.removal_curves import CURVES, WHOLE
from shiftlens.models.roles import ROLES
from shiftlens.results.look import COLORS, QUIET, finish

_DASHES = ("solid", "dash", "dashdot", "longdash", "longdashdot")


def faithfulness_boxes(table: pd.DataFrame) -> go.Figure:
    """Draw box plots of each prompt's mean rank correlation, base beside tuned, one group per comparison.

    Args:
        table: Rows from :func:`~shiftlens.analyses.faithfulness.compute.faithfulness_rows` with ``role, dataset,
            id``.
    """
    means = prompt_means(table)
    fig = go.Figure()
    for role in ROLES:
        rows = means[means["role"] == role]
        compared = zip(rows["method"], rows["by"], strict=True)
        fig.add_box(
            x=[
                by.replace("_vs_", " and ") if method == ALL_REMOVALS else f"{method}<br>{by}"
                for method, by in compared
            ],
            y=rows["spearman"].tolist(),
            boxpoints="all",
            jitter=0.4,
            pointpos=0,
            name=role,
            marker={"color": COLORS[role], "size": 6, "symbol": "square" if role == "base" else "circle"},
            line={"color": COLORS[role]},
        )
    fig.update_yaxes(title="mean Spearman correlation", range=[-1, 1], zeroline=True)
    return finish(fig).update_layout(boxmode="group")


def removal_curves(points: pd.DataFrame, words: Mapping[str, str]) -> go.Figure:
    """Draw the mean change of the target along deletion and insertion, one panel per model and curve.

    Args:
        points: Rows of :func:`~shiftlens.analyses.faithfulness.removal_curves.curve_points` with the column
            ``role``.
        words: Label of each method -> its name in the legend; random importance is grey and dotted.
    """
    titles = [f"{curve}, {role}" for role in ROLES for curve in CURVES]
    fig = make_subplots(rows=1, cols=4, shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=titles)
    whole = points[points["position"] == WHOLE]
    means = whole.groupby(["role", "curve", "method", "share"])["change"].mean()
    drawn = set(whole[["role", "curve", "method"]].itertuples(index=False, name=None))
    for number, method in enumerate(words):
        is_random = method == RANDOM
        for panel, (role, curve) in enumerate(((r, c) for r in ROLES for c in CURVES), start=1):
            if (role, curve, method) not in drawn:
                continue
            line = means[role, curve, method].sort_index()
            color = QUIET if is_random else COLORS[role]
            fig.add_scatter(
                x=[100 * share for share in line.index],
                y=line.tolist(),
                name=words[method],
                legendgroup=method,
                showlegend=panel == 1,
                mode="lines+markers",
                line={"color": color, "dash": "dot" if is_random else _DASHES[number % len(_DASHES)]},
                marker={"size": 5},
                hovertemplate="%{x:.0f} %: %{y:.2f}",
                row=1,
                col=panel,
            )
    for panel, (_, curve) in enumerate(((r, c) for r in ROLES for c in CURVES), start=1):
        fig.update_xaxes(title="% of tokens removed" if curve == "deletion" else "% of tokens put back", col=panel)
    fig.update_yaxes(title="mean change of the target", col=1)
    fig = finish(fig, 400).update_layout(margin={"l": 60, "r": 24, "t": 90, "b": 76})
    return fig
