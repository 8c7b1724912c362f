"""Draws the shares of unshifted, marginal and shifted tokens along the response."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shiftlens.analyses.token_shift.compute import BINS, KINDS, STEP
from shiftlens.results.look import COLORS, QUIET, finish

_KIND_COLORS = {"unshifted": COLORS["base"], "marginal": QUIET, "shifted": COLORS["tuned"]}
_FIRST = 50  # response tokens shown by absolute position


def shift_by_position(profile: pd.DataFrame) -> go.Figure:
    """Draw the shares of unshifted, marginal and shifted tokens over the response, as stacked bars.

    Args:
        profile: Table from :func:`~shiftlens.analyses.token_shift.compute.shift_profile`.

    Returns:
        The figure: left by relative position, right for the first tokens; all data sets together.
    """
    fig = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06)
    for panel, scale in enumerate(("relative", "absolute"), start=1):
        rows = profile[profile["scale"] == scale]
        rows = rows if scale == "relative" else rows[rows["bin"] < _FIRST // STEP]
        counts = rows[list(KINDS)].mul(rows["n"], axis=0).groupby(rows["bin"]).sum()
        total = counts.sum(axis=1)
        for kind in KINDS:
            fig.add_bar(
                x=[_bin_label(scale, int(bin_)) for bin_ in counts.index],
                y=(counts[kind] / total).tolist(),
                customdata=[round(n) for n in total],
                hovertemplate=f"%{{x}}{' %' if scale == 'relative' else ''}: %{{y:.1%}} of %{{customdata}} tokens",
                name=kind,
                legendgroup=kind,
                showlegend=panel == 1,
                marker={"color": _KIND_COLORS[kind]},
                row=1,
                col=panel,
            )
    # Without a percent sign in each of the ten labels, which would then be too wide and be rotated.
    fig.update_xaxes(title="position in the response, %", tickangle=0, tickfont={"size": 11}, col=1)
    fig.update_xaxes(title="response token", col=2)
    fig.update_yaxes(title="share of tokens", col=1)
    fig.update_yaxes(range=[0, 1], tickformat=".0%")
    return finish(fig).update_layout(barmode="stack", bargap=0.08)


def _bin_label(scale: str, bin_: int) -> str:
    """Name the range of a bin: percent of the response (``relative``), or token numbers from 1 (``absolute``)."""
    if scale == "relative":
        return f"{bin_ * 100 // BINS}–{(bin_ + 1) * 100 // BINS}"
    return f"{bin_ * STEP + 1}–{(bin_ + 1) * STEP}"
