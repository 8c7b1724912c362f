"""Draws the figures of the word pairs of attention heads: which heads changed, and for which verbs."""

from __future__ import annotations

import html
import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shiftlens.results.look import COLORS, MIDDLE, QUIET, REGION_COLORS, Z95, finish

KIND_COLORS = {"instruction": REGION_COLORS["instruction"], "general": QUIET}
"""Colour of each kind of verbs."""

_VERBS_SHOWN = 6
_DEPTH = {
    "1": "quarter 1<br>input",
    "2": "quarter 2",
    "3": "quarter 3",
    "4": "quarter 4<br>output",
    "all": "all layers",
}
_JITTER = 0.15
_GOLDEN = (math.sqrt(5) - 1) / 2


def head_changes(head_pairs: pd.DataFrame, head_verbs: pd.DataFrame, kind: str) -> go.Figure:
    """Draw the number of word pairs that each head gained minus the number that it lost, layer by head.

    Args:
        head_pairs: ``layer, head, gained, lost`` of all analyzed heads, pairs of any words.
        head_verbs: ``layer, head, verb, kind, gained, lost``; a pair counts for each of its verbs.
        kind: ``instruction`` or ``general`` for pairs with verbs of that kind, ``any`` for all pairs.

    Returns:
        A heatmap with the layers to the right; a head that was not analyzed has no cell.

    Example:
        >>> heads = pd.DataFrame({"layer": [0, 0], "head": [0, 1], "gained": [5, 0], "lost": [1, 0]})
        >>> verbs = pd.DataFrame({"layer": [0], "head": [1], "verb": "write", "kind": "instruction"})
        >>> fig = head_changes(heads, verbs.assign(gained=2, lost=3), "instruction")
        >>> fig.data[0].z, fig.data[0].text[1]
        (([0], [-1]), ['2 gained, 3 lost<br>write +2 −3'])
    """
    verbs = head_verbs[head_verbs["kind"] == kind]
    counted = head_pairs if kind == "any" else verbs
    sums = counted.groupby(["layer", "head"])[["gained", "lost"]].sum()
    verb_lines = {} if kind == "any" else _verbs_by_head(verbs)
    layers, heads = sorted(head_pairs["layer"].unique()), sorted(head_pairs["head"].unique())
    analyzed = set(zip(head_pairs["layer"], head_pairs["head"], strict=True))
    changes = {key: (int(gained), int(lost)) for key, gained, lost in sums.itertuples()}
    z: list[list[int | None]] = []
    text: list[list[str]] = []
    for head in heads:
        row = [changes.get((layer, head), (0, 0)) if (layer, head) in analyzed else None for layer in layers]
        z.append([None if change is None else change[0] - change[1] for change in row])
        text.append(
            [
                ""
                if change is None
                else f"{change[0]} gained, {change[1]} lost{verb_lines.get((layer, head), '')}"
                for layer, change in zip(layers, row, strict=True)
            ]
        )
    limit = _limit(z)
    fig = go.Figure()
    fig.add_heatmap(
        z=z,
        x=[str(layer) for layer in layers],
        y=[str(head) for head in heads],
        text=text,
        hovertemplate="layer %{x}, head %{y}: %{z:+d}<br>%{text}<extra></extra>",
        colorscale=[[0, COLORS["base"]], [0.5, MIDDLE], [1, COLORS["tuned"]]],
        zmin=-limit,
        zmax=limit,
        xgap=1,
        ygap=1,
        colorbar={
            "title": {"text": "gained<br>− lost"},
            "thickness": 14,
            "tickvals": [-limit, 0, limit],
            "ticktext": [f"−{limit}", "0", f"+{limit}"],
        },
    )
    fig.update_xaxes(title="layer (0 is next to the input)", type="category", showgrid=False)
    fig.update_yaxes(title="head", type="category", autorange="reversed", showgrid=False)
    finish(fig, height=140 + max(16 * len(heads), 240))
    fig.update_layout(margin_t=24)
    return fig


def verb_shares(table: pd.DataFrame) -> go.Figure:
    """Draw, for each verb, the share of changed heads that gained pairs with it, by kind of verb.

    Each dot is a verb; bars are means over verbs +- 1.96 standard errors.

    Args:
        table: ``verb, kind, layers, share, n``; a verb without changed heads has share NaN and no dot.

    Example:
        >>> rows = [("write", "instruction", "all", 0.75, 4), ("go", "general", "all", 0.5, 2)]
        >>> fig = verb_shares(pd.DataFrame(rows, columns=["verb", "kind", "layers", "share", "n"]))
        >>> [(trace.name, trace.y) for trace in fig.data[::2]]
        [('instruction verbs', (75.0,)), ('general verbs', (50.0,))]
    """
    known = table[table["share"].notna()]
    depth = [layers for layers in _DEPTH if (known["layers"] == layers).any()]
    fig = go.Figure()
    for kind, side in (("instruction", -0.2), ("general", 0.2)):
        rows = known[known["kind"] == kind]
        # The horizontal spread is fixed and not random, so that the same run gives the same figure.
        spread = [_JITTER * (2 * (i * _GOLDEN % 1) - 1) for i in range(len(rows))]
        fig.add_scatter(
            x=[
                round(depth.index(layers) + side + shift, 3)
                for layers, shift in zip(rows["layers"], spread, strict=True)
            ],
            y=[round(100 * float(share), 2) for share in rows["share"]],
            text=[
                f"{html.escape(str(verb), quote=False)}: more in {share:.0%} of {n} changed heads"
                for verb, share, n in zip(rows["verb"], rows["share"], rows["n"], strict=True)
            ],
            hovertemplate="%{text}<extra></extra>",
            mode="markers",
            # Shape repeats the meaning of the colour.
            marker={
                "color": KIND_COLORS[kind],
                "size": 7,
                "opacity": 0.5,
                "symbol": "diamond" if kind == "instruction" else "circle",
            },
            name=f"{kind} verbs",
            legendgroup=kind,
        )
        groups = [(x, rows.loc[rows["layers"] == layers, "share"]) for x, layers in enumerate(depth)]
        groups = [(x, shares) for x, shares in groups if len(shares)]
        halves = [Z95 * float(s.std(ddof=1)) / math.sqrt(len(s)) if len(s) > 1 else 0.0 for _, s in groups]
        fig.add_scatter(
            x=[x + side for x, _ in groups],
            y=[round(100 * float(shares.mean()), 2) for _, shares in groups],
            error_y={
                "type": "data",
                "array": [round(100 * half, 2) for half in halves],
                "thickness": 2,
                "width": 0,
            },
            text=[f"{len(shares)} {kind} verbs" for _, shares in groups],
            hovertemplate="%{text}: mean %{y:.1f} ± %{error_y.array:.1f}%<extra></extra>",
            mode="markers",
            marker={
                "symbol": "line-ew",
                "size": 44,
                "color": KIND_COLORS[kind],
                "line": {"width": 4, "color": KIND_COLORS[kind]},
            },
            legendgroup=kind,
            showlegend=False,
        )
    fig.add_hline(y=50, line={"dash": "dot", "width": 1, "color": "#80868c"})
    fig.update_xaxes(
        tickvals=list(range(len(depth))),
        ticktext=[_DEPTH[layers] for layers in depth],
        range=[-0.5, len(depth) - 0.5],
        showgrid=False,
        zeroline=False,
    )
    fig.update_yaxes(title="heads where tuned has more", ticksuffix="%", range=[-4, 104])
    fig.update_layout(hovermode="closest")
    return finish(fig, height=420)


def _verbs_by_head(verbs: pd.DataFrame) -> dict[tuple[int, int], str]:
    """Return the verbs whose pairs changed most in each head, as a line of a hover label."""
    changed = verbs[(verbs["gained"] > 0) | (verbs["lost"] > 0)]
    changed = changed.assign(size=changed["gained"] + changed["lost"])
    lines: dict[tuple[int, int], str] = {}
    for (layer, head), rows in changed.sort_values(["size", "verb"], ascending=[False, True]).groupby(
        ["layer", "head"]
    ):
        parts = [
            _signed(*row) for row in rows[["verb", "gained", "lost"]].head(_VERBS_SHOWN).itertuples(index=False)
        ]
        rest = len(rows) - len(parts)
        lines[int(str(layer)), int(str(head))] = (
            "<br>" + ", ".join(parts) + (f" and {rest} more" if rest > 0 else "")
        )
    return lines


def _signed(verb: str, gained: int, lost: int) -> str:
    return html.escape(str(verb), quote=False) + (f" +{gained}" if gained else "") + (f" −{lost}" if lost else "")


def _limit(z: list[list[int | None]]) -> int:
    """Return the value at which colours saturate.

    A few heads have most of the changes; without saturation they would leave all other heads pale.
    """
    sizes = [abs(value) for row in z for value in row if value]
    return max(math.ceil(np.percentile(sizes, 98)), 1) if sizes else 1
