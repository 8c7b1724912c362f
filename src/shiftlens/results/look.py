"""Colours and layout that all figures share."""

from __future__ import annotations

import html

import plotly.graph_objects as go

COLORS = {"base": "#5b7a99", "tuned": "#d1693c"}
"""Colour of each role in every figure; told apart with any common colour blindness."""
REGION_COLORS = {"instruction": "#0b7a75", "context": "#7b5ea7", "other": "#a8adb3"}
"""Colour of each region of a prompt."""
INK, PAPER = "#1d2329", "#ffffff"
"""Colours of text and ground on a light page."""
QUIET = "#5c6670"
"""Colour of what stands in the background."""
MIDDLE = "#f2f3f5"
"""Colour of no change on a scale that runs both ways."""
NULL_BAND = "rgba(128,134,140,0.28)"
"""Fill of what chance would show; it reads on light and dark ground."""
Z95 = 1.96
"""Half width of a 95 % interval in standard errors, for drawing."""

PALETTE = {
    COLORS["base"]: "--base",
    COLORS["tuned"]: "--tuned",
    **{color: f"--{region}" for region, color in REGION_COLORS.items()},
    INK: "--ink",
    PAPER: "--card",
    QUIET: "--quiet",
    MIDDLE: "--hover",
}
"""Colours of figures and the names under which the page has them, for light and dark."""


def label(text: str) -> str:
    """Text as a label of plotly, which reads labels as HTML: shown, not obeyed.

    Example:
        >>> label("<b> and")
        '&lt;b&gt; and'
    """
    return html.escape(text.replace("\n", "↵"), quote=False)


def finish(fig: go.Figure, height: int = 360) -> go.Figure:
    """Give a figure the layout that all share: white ground, room for labels, the legend at the top edge."""
    fig.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 24, "t": 60, "b": 76},
        # At the top edge, whatever the height.
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 0.99, "yanchor": "top", "yref": "container"},
    )
    # Titles of panels; plotly's own size belongs to a whole figure.
    fig.update_annotations(font_size=14)
    return fig
