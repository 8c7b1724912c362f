"""Draws the figures of the concepts of feed-forward layers: variance, rotation, linguistic level, task.

As in :mod:`shiftlens.analyses.density.figures`, data are lists, and labels are escaped, because plotly interprets
them as HTML.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shiftlens.models.roles import ROLES
from shiftlens.results.look import COLORS, NULL_BAND, finish

_DEPTH = {"1": "1<br>input", "2": "2", "3": "3", "4": "4<br>output"}
_DESCRIBED = "can be described"


def explained_variance(table: pd.DataFrame) -> go.Figure:
    """Draw the share of a layer's variance that its first components explain, for base and tuned.

    There is one panel each for the first, the middle and the last layer, and one for all components by layer.

    Args:
        table: ``role, layer, component, ratio, cumulative``.

    Example:
        >>> rows = [("base", 0, 0, 0.2), ("base", 0, 1, 0.3), ("tuned", 0, 0, 0.25), ("tuned", 0, 1, 0.35)]
        >>> fig = explained_variance(pd.DataFrame(rows, columns=["role", "layer", "component", "cumulative"]))
        >>> fig.data[1].x, fig.data[1].y, fig.data[3].y  # two components of layer 0, then layer by layer
        ((1, 2), (20.0, 30.0), (30.0,))
    """
    layers = sorted(int(layer) for layer in table["layer"].unique())
    chosen = sorted({layers[0], layers[len(layers) // 2], layers[-1]})
    k = int(table["component"].max()) + 1
    titles = [f"layer {layer}" for layer in chosen] + [f"{k} components, by layer"]
    fig = make_subplots(cols=len(titles), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.03)
    for panel, layer in enumerate(chosen, start=1):
        for role in _DRAWN:
            rows = _of(table, role)
            rows = rows[rows["layer"] == layer].sort_values("component")
            x = [int(component) + 1 for component in rows["component"]]
            _line(fig, role, x, _percent(rows["cumulative"]), panel, marks=False)
        fig.update_xaxes(title="components", rangemode="tozero", col=panel)
    for role in _DRAWN:
        last = _of(table, role).sort_values("component").groupby("layer")["cumulative"].last()
        _line(fig, role, [int(layer) for layer in last.index], _percent(last), len(titles))
    fig.update_xaxes(title="layer", col=len(titles))
    fig.update_yaxes(title="variance explained", col=1)
    fig.update_yaxes(ticksuffix="%", rangemode="tozero")
    return finish(fig)


def rotation(table: pd.DataFrame) -> go.Figure:
    """Draw how far tuning rotated each layer's concepts, with the range for random subspaces.

    Args:
        table: ``layer, mean_cosine, mean_angle, mean_left`` and the limits ``null_cosine_low``,
            ``null_cosine_high``, ``null_angle_low``, ``null_angle_high`` of random rotations.

    Example:
        >>> row = {"layer": 3, "mean_cosine": 0.9, "mean_angle": 12.0, "mean_left": 4.0}
        >>> null = {"null_cosine_low": 0.1, "null_cosine_high": 0.2, "null_angle_low": 60.0}
        >>> fig = rotation(pd.DataFrame([row | null | {"null_angle_high": 62.0}]))
        >>> [trace.y for trace in fig.data if trace.name == "tuned against base"]
        [(0.9,), (12.0,), (4.0,)]
    """
    table = table.sort_values("layer")
    x = [int(layer) for layer in table["layer"]]
    titles = ["mean |cosine| of matched concepts", "mean principal angle", "words that left a concept"]
    fig = make_subplots(cols=3, subplot_titles=titles, horizontal_spacing=0.07)
    for panel, name in ((1, "cosine"), (2, "angle")):
        _band(fig, x, _floats(table[f"null_{name}_low"]), _floats(table[f"null_{name}_high"]), panel)
    for panel, column in enumerate(("mean_cosine", "mean_angle", "mean_left"), start=1):
        fig.add_scatter(
            x=x,
            y=_floats(table[column]),
            mode="lines+markers",
            line={"color": COLORS["tuned"], "width": 2.5},
            marker={"size": 6},
            name="tuned against base",
            legendgroup="tuned",
            showlegend=panel == 1,
            hovertemplate="layer %{x}<br>%{y:.4g}<extra></extra>",
            row=1,
            col=panel,
        )
    fig.update_xaxes(title="layer")
    # The whole scale, so that a small rotation looks small.
    fig.update_yaxes(range=[0, 1.02], col=1)
    fig.update_yaxes(range=[0, 92], dtick=30, ticksuffix="°", col=2)
    fig.update_yaxes(rangemode="tozero", col=3)
    return finish(fig)


def levels(table: pd.DataFrame) -> go.Figure:
    """Draw the share of concepts of each linguistic level over the depth, for base and tuned.

    Source: The paper's figure of levels by group of layers.

    Args:
        table: ``kind, class, layers, base, tuned, n, gained, lost``; uses ``interpretable`` and ``level``.

    Example:
        >>> row = {"class": "syntax", "layers": "1", "base": 0.1, "tuned": 0.2, "n": 10, "gained": 1, "lost": 0}
        >>> fig = levels(pd.DataFrame([row | {"kind": "level"}]))
        >>> [(trace.name, trace.y) for trace in fig.data]
        [('tuned', (20.0,)), ('base', (10.0,))]
    """
    rows = table[table["kind"].isin(["interpretable", "level"]) & (table["layers"] != "all")]
    classes = list(rows["class"].unique())
    titles = [_DESCRIBED if name == "interpretable" else html.escape(str(name), quote=False) for name in classes]
    fig = make_subplots(cols=max(len(titles), 1), subplot_titles=titles, horizontal_spacing=0.045)
    for panel, name in enumerate(classes, start=1):
        of_class = rows[rows["class"] == name].sort_values("layers")
        x = [int(quarter) for quarter in of_class["layers"]]
        for role in _DRAWN:
            _line(fig, role, x, _percent(of_class[role]), panel, hover=_changes(of_class))
        fig.update_xaxes(
            tickvals=x,
            ticktext=[_DEPTH[str(i)] for i in x],
            range=[0.7, 4.3],
            title="quarter of the depth",
            col=panel,
        )
        if name != "interpretable":
            # The levels share a scale; the share of concepts that can be described at all is much larger.
            fig.update_yaxes(matches=f"y{len(classes)}" if len(classes) > 1 else None, col=panel)
    fig.update_yaxes(title="share of concepts", col=1)
    fig.update_yaxes(ticksuffix="%", rangemode="tozero")
    return finish(fig)


def tasks(table: pd.DataFrame) -> go.Figure:
    """Draw the share of concepts that serve each task, over all layers, for base and tuned.

    Args:
        table: ``kind, class, layers, base, tuned, n, gained, lost``; uses ``task`` in ``all`` layers.

    Example:
        >>> row = {"class": "coding", "layers": "all", "base": 0.1, "tuned": 0.2, "n": 10, "gained": 1, "lost": 0}
        >>> fig = tasks(pd.DataFrame([row | {"kind": "task"}]))
        >>> [(trace.name, trace.x) for trace in fig.data[-2:]]
        [('tuned', (20.0,)), ('base', (10.0,))]
    """
    rows = table[(table["kind"] == "task") & (table["layers"] == "all")]
    names = [html.escape(str(name), quote=False) for name in rows["class"]]
    shares = {role: _percent(rows[role]) for role in ROLES}
    fig = go.Figure()
    for name, base, tuned in zip(names, shares["base"], shares["tuned"], strict=True):
        fig.add_scatter(
            x=[base, tuned],
            y=[name, name],
            mode="lines",
            line={"color": NULL_BAND, "width": 5},
            hoverinfo="skip",
            showlegend=False,
        )
    for role in _DRAWN:
        fig.add_scatter(
            x=shares[role],
            y=names,
            mode="markers",
            marker={"color": COLORS[role], "size": 2 * _SIZE[role], "symbol": _SYMBOL[role]},
            name=role,
            legendrank=ROLES.index(role),
            text=_changes(rows),
            hovertemplate="%{y}: %{x:.2f}%<br>%{text}",
        )
    fig.update_xaxes(title="share of concepts, all layers", ticksuffix="%", rangemode="tozero")
    fig.update_yaxes(autorange="reversed")
    return finish(fig, height=320)


_SYMBOL = {"base": "square", "tuned": "circle"}
_SIZE = {"base": 5, "tuned": 8}
_DRAWN = tuple(reversed(ROLES))
"""Drawing order; base comes last, dotted and small, so that both roles are visible where they are equal."""


def _line(
    fig: go.Figure,
    role: str,
    x: Sequence[int],
    y: Sequence[float],
    panel: int,
    marks: bool = True,
    hover: Sequence[str] | None = None,
) -> None:
    fig.add_scatter(
        x=list(x),
        y=list(y),
        mode="lines+markers" if marks else "lines",
        # Shape and dash repeat the meaning of the colour, for print and colour blindness.
        marker={"symbol": _SYMBOL[role], "size": _SIZE[role]},
        line={"color": COLORS[role], "width": 2.5, "dash": "dot" if role == "base" else "solid"},
        name=role,
        legendgroup=role,
        legendrank=ROLES.index(role),
        showlegend=panel == 1,
        text=list(hover) if hover is not None else None,
        hovertemplate="%{x}: %{y:.2f}%" + ("<br>%{text}" if hover is not None else ""),
        row=1,
        col=panel,
    )


def _band(fig: go.Figure, x: Sequence[int], low: Sequence[float], high: Sequence[float], panel: int) -> None:
    fig.add_scatter(
        x=[*x, *reversed(x)],
        y=[*high, *reversed(low)],
        fill="toself",
        fillcolor=NULL_BAND,
        # Without a thin edge, a band of width 0 would be invisible.
        line={"width": 1.5, "color": NULL_BAND},
        mode="lines",
        hoverinfo="skip",
        name="random subspaces, 95 % of draws",
        legendgroup="null",
        showlegend=panel == 1,
        row=1,
        col=panel,
    )


def _of(table: pd.DataFrame, role: str) -> pd.DataFrame:
    return table[table["role"] == role]


def _changes(rows: pd.DataFrame) -> list[str]:
    parts = zip(rows["gained"], rows["lost"], rows["n"], strict=True)
    return [f"{gained} gained it, {lost} lost it, of {n}" for gained, lost, n in parts]


def _floats(values: pd.Series[float]) -> list[float]:
    return [float(value) for value in values]


def _percent(values: pd.Series[float]) -> list[float]:
    # Rounded for a smaller page: 0.07 * 100 is 7.000000000000001.
    return [round(100 * float(value), 4) for value in values]
