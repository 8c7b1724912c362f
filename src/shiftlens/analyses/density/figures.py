"""Draws plotly figures of scores and densities: by region, by position, and the map of one prompt.

Figures are built from lists, never arrays: plotly encodes arrays as base64, which the plotly.js of some
viewers (Weights & Biases among them) cannot read and draws as an empty chart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shiftlens.analyses.density.maps import SaliencyMap, ShiftMap
from shiftlens.models.roles import ROLES
from shiftlens.results.look import COLORS, INK, MIDDLE, PAPER, Z95, label

_REGIONS = ("instruction", "context", "other", "template", "first")


def density_by_region(samples: pd.DataFrame) -> go.Figure:
    """Draw the mean importance density by prompt region, base beside tuned, one panel per data set.

    Whiskers are mean +- 1.96 standard errors over the prompts that have tokens in the region.

    Args:
        samples: Table ``samples``: ``role, dataset`` and a column ``density_REGION`` for each region.

    Returns:
        The figure; without samples it has no traces.

    Example:
        >>> s = pd.DataFrame({"role": ["base"] * 2, "dataset": "d", "density_instruction": [0.2, 0.4]})
        >>> fig = density_by_region(s)
        >>> round(fig.data[0].y[0], 3)
        0.3
    """
    datasets = list(samples["dataset"].unique()) if len(samples) else []
    fig = _panels(datasets)
    for panel, dataset in enumerate(datasets, start=1):
        for role in _present(samples):
            rows = samples[(samples["role"] == role) & (samples["dataset"] == dataset)]
            columns = [region for region in _REGIONS if f"density_{region}" in rows]
            columns = [c for c in columns if c in _REGIONS[:3] or samples[f"density_{c}"].notna().any()]
            values = [rows[f"density_{region}"].dropna() for region in columns]
            fig.add_bar(
                x=columns,
                y=[float(value.mean()) if len(value) else None for value in values],
                error_y={
                    "type": "data",
                    "array": [_half_width(value) for value in values],
                    "thickness": 1.2,
                    "color": INK,
                },
                text=[f"n={len(value)}" if len(value) else "" for value in values],
                textposition="inside",
                insidetextanchor="start",
                textfont={"color": PAPER},
                textangle=0,
                hovertemplate="%{x}<br>mean %{y:.3f} ± %{error_y.array:.3f}<br>%{text}",
                name=role,
                legendgroup=role,
                showlegend=panel == 1,
                marker={"color": COLORS[role]},
                row=1,
                col=panel,
            )
    fig.update_layout(barmode="group", bargap=0.3)
    fig.update_xaxes(showgrid=False)
    return _finish(fig, "mean importance density")


def position_profile(profile: pd.DataFrame) -> go.Figure:
    """Draw the mean density over relative prompt position, one line per role ("lost in the middle" in the paper).

    Bands are mean +- 1.96 standard errors.

    Args:
        profile: Table ``profile``: ``role, dataset, bin (0..9), mean, std, n``.

    Returns:
        The figure; without a profile it has no traces.

    Example:
        >>> p = pd.DataFrame({"role": "tuned", "dataset": "d", "bin": [0, 1], "mean": [0.5, 0.1],
        ...                   "std": [0.0, 0.0], "n": [3, 3]})
        >>> fig = position_profile(p)
        >>> [trace.name for trace in fig.data], fig.data[1].x
        (['tuned interval', 'tuned'], (5.0, 15.0))
    """
    datasets = list(profile["dataset"].unique()) if len(profile) else []
    fig = _panels(datasets)
    for panel, dataset in enumerate(datasets, start=1):
        for role in _present(profile):
            rows = profile[(profile["role"] == role) & (profile["dataset"] == dataset)].sort_values("bin")
            rows = rows[rows["mean"].notna()]
            x = [float(10 * b + 5) for b in rows["bin"]]
            spread = zip(rows["std"].fillna(0.0), rows["n"], strict=True)
            half = [Z95 * float(std) / math.sqrt(n) if n else 0.0 for std, n in spread]
            mean = [float(m) for m in rows["mean"]]
            upper = [m + h for m, h in zip(mean, half, strict=True)]
            lower = [m - h for m, h in zip(mean, half, strict=True)]
            fig.add_scatter(
                x=x + x[::-1],
                y=upper + lower[::-1],
                fill="toself",
                fillcolor=_rgba(COLORS[role], 0.18),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                name=f"{role} interval",
                legendgroup=role,
                showlegend=False,
                row=1,
                col=panel,
            )
            fig.add_scatter(
                x=x,
                y=mean,
                customdata=[[h, int(n)] for h, n in zip(half, rows["n"], strict=True)],
                hovertemplate="%{y:.3f} ± %{customdata[0]:.3f}, n=%{customdata[1]}",
                mode="lines+markers",
                # Shape and dash repeat what colour says, for print and colour blindness.
                marker={"symbol": "square" if role == "base" else "circle", "size": 7},
                line={"color": COLORS[role], "width": 2.5, "dash": "dot" if role == "base" else "solid"},
                name=role,
                legendgroup=role,
                showlegend=panel == 1,
                row=1,
                col=panel,
            )
    fig.update_xaxes(title="position in the prompt", ticksuffix="%", range=[0, 100], dtick=20)
    fig.update_layout(hovermode="x")
    return _finish(fig, "mean importance density")


def saliency_heatmap(saliency: SaliencyMap) -> go.Figure:
    """Draw the score S of one prompt as a heatmap: prompt tokens down, response tokens across (paper, figure 1).

    Args:
        saliency: Scores of one prompt under one model.

    Returns:
        The figure; an empty response gives an annotation in place of cells.

    Example:
        >>> m = SaliencyMap("a", "base", ["hi"], ["<b>"], ["other"], np.ones((1, 1), np.uint8),
        ...                 np.ones(1), 0.0, "<b>", None)
        >>> saliency_heatmap(m).layout.xaxis.ticktext
        ('&lt;b&gt;',)
    """
    prompt = [label(token) for token in saliency.prompt_tokens]
    response = [label(token) for token in saliency.response_tokens]
    fig = go.Figure()
    title = f"{saliency.role}, {saliency.prompt_id}, instruction score {saliency.instruction_score:.2f}"
    if not prompt or not response:
        fig.add_annotation(text="The response is empty: nothing to explain.", showarrow=False)
        fig.update_layout(template="plotly_white", title=label(title), xaxis_visible=False, yaxis_visible=False)
        return fig
    fig.add_heatmap(
        z=np.asarray(saliency.score).tolist(),
        customdata=[[f"{a} → {b}" for b in response] for a in prompt],
        hovertemplate="%{customdata}<br>S = %{z}<extra></extra>",
        colorscale=[[0, "#ffffff"], [1, COLORS[saliency.role]]],
        zmin=0,
        zmax=max(int(np.max(saliency.score)), 1),
        xgap=1,
        ygap=1,
        colorbar={"title": "S"},
    )
    # Positions with tick texts: a category axis would merge tokens that occur twice.
    fig.update_xaxes(tickvals=list(range(len(response))), ticktext=response, tickangle=-60)
    fig.update_yaxes(tickvals=list(range(len(prompt))), ticktext=prompt, autorange="reversed")
    fig.update_layout(template="plotly_white", title=label(title), height=160 + 16 * len(prompt))
    return fig


def shift_heatmap(shift: ShiftMap) -> go.Figure:
    """Draw the shift map of one response: orange where the tuned model's importance is larger, blue where smaller.

    Args:
        shift: The map to draw.
    """
    most = float(np.abs(shift.shift).max(initial=0)) or 1.0
    fig = go.Figure()
    fig.add_heatmap(
        z=shift.shift.tolist(),
        customdata=[[label(f"{a} → {b}") for b in shift.response_tokens] for a in shift.prompt_tokens],
        hovertemplate=f"%{{customdata}}<br>%{{z:+.3g}} {shift.unit}<extra></extra>",
        colorscale=[[0, COLORS["base"]], [0.5, MIDDLE], [1, COLORS["tuned"]]],
        zmin=-most,
        zmax=most,
        xgap=1,
        ygap=1,
        colorbar={"title": shift.unit},
    )
    prompt, response = ([label(t) for t in tokens] for tokens in (shift.prompt_tokens, shift.response_tokens))
    fig.update_xaxes(tickvals=list(range(len(response))), ticktext=response, tickangle=-60)
    fig.update_yaxes(tickvals=list(range(len(prompt))), ticktext=prompt, autorange="reversed")
    title = label(f"tuned minus base, {shift.prompt_id}, by {shift.method}")
    return fig.update_layout(template="plotly_white", title=title, height=160 + 16 * len(prompt))


def _panels(datasets: Sequence[str]) -> go.Figure:
    titles = [label(str(name)) for name in datasets]
    return make_subplots(rows=1, cols=max(len(datasets), 1), subplot_titles=titles, shared_yaxes=True)


def _finish(fig: go.Figure, title: str) -> go.Figure:
    fig.update_yaxes(title=title, col=1)
    fig.update_yaxes(rangemode="tozero")
    fig.update_layout(
        template="plotly_white",
        height=380,
        margin={"l": 60, "r": 30, "t": 50, "b": 50},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.12, "yanchor": "bottom"},
    )
    return fig


def _present(frame: pd.DataFrame) -> list[str]:
    return [role for role in ROLES if (frame["role"] == role).any()]


def _half_width(values: pd.Series[float]) -> float:
    return Z95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _rgba(color: str, alpha: float) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
