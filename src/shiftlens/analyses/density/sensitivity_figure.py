"""Draws the test statistics of T1 and T2 over the whole grid of L, b and p."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shiftlens.analyses.density.t1_t2 import T1, T2
from shiftlens.results.finding import ALPHA

_TITLES = {T1: "T1", T2: "T2"}


def sensitivity_map(sensitivity: pd.DataFrame, data: str) -> go.Figure:
    """Draw the test statistics of T1 and T2 over b and p, one panel per L.

    Red is a positive t, blue a negative one; a dot marks settings whose p-value, corrected for the whole grid, is
    at most 0.05. Settings that cannot be tested are empty.

    Args:
        sensitivity: Table ``sensitivity`` of :class:`shiftlens.analyses.density.compute.Examination`.
        data: Name of the data set to show; ``pooled`` for all data sets together.

    Returns:
        The figure; it has no traces if nothing could be tested.

    Example:
        >>> table = pd.DataFrame({"name": "density/base_vs_tuned", "data": "d", "role": "both", "L": 5, "p": 2.0,
        ...                       "b": [0, 1], "statistic": [2.5, None], "p_corrected": [0.01, None]})
        >>> [trace.type for trace in sensitivity_map(table, "d").data]
        ['heatmap', 'scatter']
    """
    rows = sensitivity[(sensitivity["data"] == data) & sensitivity["statistic"].notna()]
    tests = [name for name in _TITLES if len(_of(rows, name))]
    if not tests:
        return go.Figure()
    levels = sorted(rows["L"].unique().tolist())
    widths = [max(level, 3) for level in levels]
    figure = make_subplots(
        rows=len(tests), cols=len(levels), column_widths=widths, horizontal_spacing=0.05, vertical_spacing=0.16,
        subplot_titles=[f"{_TITLES[test]}, L = {level}" for test in tests for level in levels],
    )  # fmt: skip
    limit = float(rows["statistic"].abs().max())
    for row, test in enumerate(tests, start=1):
        for column, level in enumerate(levels, start=1):
            cells = _of(rows, test)
            cells = cells[cells["L"] == level]
            grid = cells.pivot(index="p", columns="b", values="statistic").astype(float)
            shown = grid.astype(object).where(grid.notna(), None)  # NaN is no JSON
            figure.add_heatmap(
                x=grid.columns.tolist(), y=[f"{p:g}" for p in grid.index], z=shown.to_numpy().tolist(),
                zmin=-limit, zmax=limit, colorscale="RdBu", reversescale=True, xgap=1, ygap=1,
                showscale=row == 1 and column == len(levels), colorbar={"title": "t", "len": 0.9},
                hovertemplate="b %{x}, p %{y}: t %{z:.2f}<extra></extra>", row=row, col=column,
            )  # fmt: skip
            significant = cells[cells["p_corrected"] <= ALPHA]
            figure.add_scatter(
                x=significant["b"].tolist(), y=[f"{p:g}" for p in significant["p"]],
                mode="markers", showlegend=False, marker={"color": "rgba(20,20,20,0.75)", "size": 5},
                customdata=significant["p_corrected"].astype(float).tolist(),
                hovertemplate="corrected p %{customdata:.3g}<extra></extra>", row=row, col=column,
            )  # fmt: skip
    figure.update_layout(height=120 + 220 * len(tests), margin={"l": 50, "r": 20, "t": 40, "b": 50})
    figure.update_xaxes(title_text="b", row=len(tests))
    figure.update_yaxes(title_text="p", col=1, type="category")
    return figure


def _of(rows: pd.DataFrame, test: str) -> pd.DataFrame:
    return rows[rows["name"] == test]
