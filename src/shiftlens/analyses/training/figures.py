"""Draws the figures of a tuning run: curves over optimizer steps, and the model before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shiftlens.analyses.word_pairs.figures import KIND_COLORS
from shiftlens.results.look import COLORS, QUIET, REGION_COLORS, Z95, finish
from shiftlens.scores.samples import BINS
from shiftlens.stats.rates import wilson

_DEPTH = {
    "1": "quarter 1, input",
    "2": "quarter 2",
    "3": "quarter 3",
    "4": "quarter 4, output",
    "all": "all layers",
}


def loss(curves: pd.DataFrame) -> go.Figure:
    """Draw the loss of each training step, its running mean, and the held-out loss."""
    fig = go.Figure()
    train, held_out = (_of(curves, "loss", group) for group in ("train", "held_out"))
    if len(train):
        smooth = train["value"].rolling(max(1, len(train) // 20), min_periods=1, center=True).mean()
        _line(fig, train["step"], train["value"], "each step", QUIET, width=1.0, opacity=0.35)
        _line(fig, train["step"], smooth, "training, running mean", COLORS["base"], width=2.0, dash="dot")
    if len(held_out):
        _line(fig, held_out["step"], held_out["value"], "held out", COLORS["tuned"], marks=True)
    fig.update_yaxes(title="loss, nats per token", rangemode="tozero")
    return _over_steps(fig)


def follow(curves: pd.DataFrame) -> go.Figure:
    """Draw the share of the probes' responses that follow their instruction, with Wilson intervals."""
    rows = _of(curves, "follow_rate", "all")
    fig = go.Figure()
    if len(rows):
        counts = zip((rows["value"] * rows["n"]).round().astype(int), rows["n"].astype(int), strict=True)
        bounds = np.array([wilson(passed, n) for passed, n in counts])
        _band(fig, rows["step"], 100 * bounds[:, 0], 100 * bounds[:, 1], COLORS["tuned"])
        _line(fig, rows["step"], 100 * rows["value"], "followed", COLORS["tuned"], marks=True)
    fig.update_yaxes(title="responses that follow", ticksuffix="%", range=[0, 100])
    return _over_steps(fig, legend=False)


def scores(curves: pd.DataFrame) -> go.Figure:
    """Draw the instruction score on the model's own responses, and on the responses of the first look."""
    fig = go.Figure()
    for before, name, color, dash in (
        ("", "its own responses", COLORS["tuned"], "solid"),
        ("fixed_", "responses of the first look", COLORS["base"], "dot"),
    ):
        rows = _of(curves, f"{before}instruction_score", "all")
        if len(rows):
            half = _half(rows)
            _band(fig, rows["step"], rows["value"] - half, rows["value"] + half, color)
            _line(fig, rows["step"], rows["value"], name, color, dash=dash, marks=True)
    fig.update_yaxes(title="instruction score", rangemode="tozero")
    return _over_steps(fig)


def density(curves: pd.DataFrame) -> go.Figure:
    """Draw the density by region, on the model's own responses and on the responses of the first look."""
    panels = [("", "its own responses"), ("fixed_", "responses of the first look")]
    panels = [
        (before, title) for before, title in panels if len(_of(curves, f"{before}density_instruction", "all"))
    ]
    if not panels:
        return go.Figure()
    fig = make_subplots(
        rows=1, cols=len(panels), shared_yaxes=True, subplot_titles=[title for _, title in panels],
        horizontal_spacing=0.05,
    )  # fmt: skip
    for panel, (before, _) in enumerate(panels, start=1):
        for region, color in REGION_COLORS.items():
            rows = _of(curves, f"{before}density_{region}", "all")
            if len(rows):
                half = _half(rows)
                where = {"row": 1, "col": panel}
                _band(fig, rows["step"], rows["value"] - half, rows["value"] + half, color, **where)
                _line(
                    fig, rows["step"], rows["value"], region, color, marks=True, shown=panel == 1,
                    dash="dot" if before else "solid", **where,
                )  # fmt: skip
    fig.update_yaxes(title="mean importance density", col=1)
    fig.update_yaxes(rangemode="tozero")
    return _over_steps(fig)


def profile(curves: pd.DataFrame) -> go.Figure:
    """Draw the density over the prompt before, in the middle of, and after tuning."""
    rows = curves[curves["measure"] == "profile"]
    steps = sorted(rows["step"].unique().tolist())
    if not steps:
        return go.Figure()
    shown = {steps[0]: ("before", COLORS["base"], "dot"), steps[-1]: ("after", COLORS["tuned"], "solid")}
    if len(steps) > 2:
        middle = steps[len(steps) // 2]
        shown = {steps[0]: shown[steps[0]], middle: (f"step {middle}", QUIET, "dash"), steps[-1]: shown[steps[-1]]}
    fig = go.Figure()
    for step, (name, color, dash) in shown.items():
        bins = rows[rows["step"] == step].assign(bin=lambda frame: frame["group"].astype(int)).sort_values("bin")
        _line(fig, (bins["bin"] + 0.5) * 100 / BINS, bins["value"], name, color, dash=dash, marks=True)
    fig.update_xaxes(title="position in the prompt", ticksuffix="%", range=[0, 100], dtick=20)
    fig.update_yaxes(title="mean importance density", rangemode="tozero")
    return finish(fig)


def rotation(curves: pd.DataFrame) -> go.Figure:
    """Draw the mean principal angle between each layer's concepts and those of the first look, layer by step."""
    rows = curves[(curves["measure"] == "rotation_angle") & (curves["group"] != "all")]
    if not len(rows):
        return go.Figure()
    wide = rows.assign(layer=rows["group"].astype(int)).pivot(index="layer", columns="step", values="value")
    fig = go.Figure()
    fig.add_heatmap(
        z=wide.to_numpy(float).tolist(),
        x=[str(step) for step in wide.columns],
        y=[str(layer) for layer in wide.index],
        colorscale=[[0, "#f2f3f5"], [1, COLORS["tuned"]]],
        zmin=0,
        zmax=float(wide.to_numpy().max()) or 1.0,  # a run without any rotation is pale
        xgap=2,
        ygap=1,
        colorbar={"title": "degrees"},
        hovertemplate="layer %{y}, step %{x}<br>%{z:.3g} degrees<extra></extra>",
    )
    fig.update_xaxes(title="optimizer step", type="category")
    fig.update_yaxes(title="layer", type="category")
    return finish(fig, height=max(300, 140 + 14 * len(wide)))


def pairs(curves: pd.DataFrame) -> go.Figure:
    """Draw the net share of heads that gained pairs with verbs, by depth, at the last look that counted pairs."""
    fig = go.Figure()
    for kind, color in KIND_COLORS.items():
        rows = curves[curves["measure"] == f"pairs_{kind}"]
        rows = rows[rows["step"] == rows["step"].max()]
        if not len(rows) or rows["step"].max() == curves["step"].min():
            continue
        half = [0.0 if math.isnan(value) else value for value in _half(rows).tolist()]
        fig.add_bar(
            x=[_DEPTH.get(str(group), str(group)) for group in rows["group"]],
            y=[100 * value for value in rows["value"]],
            error_y={"type": "data", "array": [100 * value for value in half], "thickness": 1.2, "color": QUIET},
            name=f"{kind} verbs",
            marker={"color": color},
            hovertemplate="%{x}<br>%{y:+.2f} ± %{error_y.array:.2f}% of heads",
        )
    fig.update_layout(barmode="group", bargap=0.3)
    fig.update_yaxes(title="net share of heads", ticksuffix="%")
    return finish(fig)


def _of(curves: pd.DataFrame, measure: str, group: str) -> pd.DataFrame:
    rows = curves[(curves["measure"] == measure) & (curves["group"] == group)]
    return rows.sort_values("step", kind="stable")


def _half(rows: pd.DataFrame) -> pd.Series[float]:
    return Z95 * rows["std"].fillna(0.0) / np.sqrt(rows["n"])


def _over_steps(fig: go.Figure, legend: bool = True) -> go.Figure:
    fig.update_xaxes(title="optimizer step", rangemode="tozero")
    fig.update_layout(hovermode="x", showlegend=legend)
    return finish(fig)


def _line(
    fig: go.Figure,
    x: Sequence[float] | pd.Series[float],
    y: Sequence[float] | pd.Series[float],
    name: str,
    color: str,
    width: float = 2.5,
    dash: str = "solid",
    opacity: float = 1.0,
    marks: bool = False,
    shown: bool = True,
    **where: int,
) -> None:
    fig.add_scatter(
        x=[float(value) for value in x],
        y=[float(value) for value in y],
        mode="lines+markers" if marks else "lines",
        line={"color": color, "width": width, "dash": dash},
        marker={"color": color, "size": 7, "symbol": "square" if dash != "solid" else "circle"},
        opacity=opacity,
        name=name,
        legendgroup=name,
        showlegend=shown,
        hovertemplate="%{y:.4g}",
        **where,
    )


def _band(
    fig: go.Figure,
    x: Sequence[float] | pd.Series[float],
    low: Sequence[float] | pd.Series[float] | np.ndarray,
    high: Sequence[float] | pd.Series[float] | np.ndarray,
    color: str,
    **where: int,
) -> None:
    there, top = [float(value) for value in x], [float(value) for value in high]
    bottom = [max(float(value), 0.0) for value in low]  # nothing drawn here can be negative
    fig.add_scatter(
        x=there + there[::-1],
        y=top + bottom[::-1],
        fill="toself",
        fillcolor=color,
        opacity=0.16,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        **where,
    )
