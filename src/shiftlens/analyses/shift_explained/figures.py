"""Draws the net contribution of each region."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shiftlens.analyses.shift_explained.compute import REGIONS
from shiftlens.results.look import INK, REGION_COLORS, Z95, finish, label


def net_by_region(table: pd.DataFrame, title: str) -> go.Figure:
    """Draw the mean net contribution of each region with its 95 % interval, one panel per method and data set.

    Whiskers are mean +- 1.96 standard errors over the prompts that have tokens in the region.

    Args:
        table: Columns ``method, dataset, region, net``, one row per method, prompt and region.
        title: Title of the vertical axes.

    Example:
        >>> rows = {"method": "gradient", "dataset": "d", "region": "other", "net": [1.0, 3.0]}
        >>> net_by_region(pd.DataFrame(rows), "nats").data[0].y
        (2.0,)
    """
    methods, datasets = list(table["method"].unique()), list(table["dataset"].unique())
    titles = [
        label(" · ".join([method, *([data] if len(datasets) > 1 else [])]))
        for method in methods
        for data in datasets
    ]
    fig = make_subplots(
        rows=max(len(methods), 1),
        cols=max(len(datasets), 1),
        subplot_titles=titles,
        vertical_spacing=0.3 / max(len(methods), 1),
    )
    for row, method in enumerate(methods, start=1):
        for column, dataset in enumerate(datasets, start=1):
            rows = table[(table["method"] == method) & (table["dataset"] == dataset)]
            for region in REGIONS:
                values = rows.loc[rows["region"] == region, "net"]
                if len(values):
                    error = Z95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
                    fig.add_bar(
                        x=[f"{region} (n={len(values)})"],
                        y=[float(values.mean())],
                        error_y={"type": "data", "array": [error], "thickness": 1.2, "color": INK},
                        hovertemplate="%{x}<br>mean %{y:.3f} ± %{error_y.array:.3f}<extra></extra>",
                        name=region,
                        marker={"color": REGION_COLORS[region]},
                        showlegend=False,
                        row=row,
                        col=column,
                    )
    fig.update_yaxes(title=title, zeroline=True, zerolinewidth=1.5, col=1)
    return finish(fig, height=80 + 250 * max(len(methods), 1)).update_layout(bargap=0.5)
