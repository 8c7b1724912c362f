"""Draws the faithfulness of each prompt as a point."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from shiftlens.analyses.faithfulness.compute import prompt_means
from shiftlens.models.roles import ROLES
from shiftlens.results.look import COLORS, finish

_COMPARED = {
    "zero": "estimate and ablation to zero",
    "mean": "estimate and ablation to the mean",
    "delete": "estimate and deletion",
    "neutral": "estimate and neutral token",
    "zero_vs_mean": "the two ablations",
}


def faithfulness_boxes(table: pd.DataFrame) -> go.Figure:
    """Draw box plots of each prompt's mean rank correlation, base beside tuned, one group per comparison.

    Args:
        table: Rows from :func:`~shiftlens.analyses.faithfulness.compute.faithfulness_rows`.
    """
    means = prompt_means(table)
    fig = go.Figure()
    for role in ROLES:
        rows = means[means["role"] == role]
        fig.add_box(
            x=[_COMPARED[by] for by in rows["by"]],
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
