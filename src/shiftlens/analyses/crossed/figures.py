"""Draws the instruction scores of both models on both responses."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shiftlens.models.roles import ROLES
from shiftlens.results.look import COLORS, Z95, finish, label


def crossed_lines(table: pd.DataFrame) -> go.Figure:
    """Draw the mean instruction score of each model against the explained response, one panel per data set.

    Parallel lines at a distance show that the models differ; sloping lines show that the responses differ.
    Whiskers are mean +- 1.96 standard errors over prompts.

    Args:
        table: Columns ``role, text, dataset, instruction_score``, one row per prompt, model and text.

    Example:
        >>> rows = [(r, t, "d", s) for r, t, s in (("base", "base", 1.0), ("base", "tuned", 1.5))]
        >>> fig = crossed_lines(pd.DataFrame(rows, columns=["role", "text", "dataset", "instruction_score"]))
        >>> fig.data[0].name, fig.data[0].y
        ('base model', (1.0, 1.5))
    """
    datasets = list(table["dataset"].unique())
    fig = make_subplots(
        cols=max(len(datasets), 1), subplot_titles=[label(str(name)) for name in datasets], shared_yaxes=True
    )
    for panel, dataset in enumerate(datasets, start=1):
        for role in ROLES:
            rows = table[(table["role"] == role) & (table["dataset"] == dataset)]
            groups = [rows.loc[rows["text"] == text, "instruction_score"] for text in ROLES]
            shown = [(text, values) for text, values in zip(ROLES, groups, strict=True) if len(values)]
            if not shown:
                continue
            errors = [float(v.std(ddof=1)) / len(v) ** 0.5 if len(v) > 1 else 0.0 for _, v in shown]
            fig.add_scatter(
                x=[f"response of the {text} model" for text, _ in shown],
                y=[float(values.mean()) for _, values in shown],
                error_y={"type": "data", "array": [Z95 * error for error in errors], "thickness": 1.2},
                mode="lines+markers",
                marker={"symbol": "square" if role == "base" else "circle", "size": 8},
                line={"color": COLORS[role], "width": 2.5, "dash": "dot" if role == "base" else "solid"},
                name=f"{role} model",
                legendgroup=role,
                showlegend=panel == 1,
                row=1,
                col=panel,
            )
    fig.update_yaxes(title="instruction score", col=1)
    return finish(fig)
