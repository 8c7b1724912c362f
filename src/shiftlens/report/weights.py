"""The views of the weights on the page and in Weights & Biases: what is shown where a run looked at weights.

The tables are those of the views; a part whose table is missing is left out, heading and all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from shiftlens.analyses.concepts.browser import pack_concepts
from shiftlens.analyses.concepts.figures import explained_variance, levels, rotation, tasks
from shiftlens.analyses.density.figures import COLORS
from shiftlens.analyses.word_pairs.figures import KIND_COLORS, MIDDLE, head_changes, verb_shares
from shiftlens.results.analysis import Analysis
from shiftlens.results.finding import Finding
from shiftlens.results.sentence import sentence, untestable

PALETTE = {
    COLORS["base"]: "--base",
    COLORS["tuned"]: "--tuned",
    KIND_COLORS["instruction"]: "--instruction",
    KIND_COLORS["general"]: "--quiet",
    MIDDLE: "--hover",
}
"""Colours of figures and the names under which the page has them, for light and dark."""

KEYWORDS = 10
"""Keywords listed that rose, and that fell."""

PARTS = {
    "rotation": ("concepts/rotation/",),
    "levels": ("concepts/interpretable", "concepts/level/"),
    "tasks": ("concepts/task/",),
    "pairs": ("pairs/",),
}
"""Parts of the page and the beginnings of names of the findings that they tell."""


def weight_charts(tables: Mapping[str, pd.DataFrame]) -> dict[str, go.Figure]:
    """The figures that ``tables`` allow, by stable name.

    Args:
        tables: of an analysis, by name.

    Returns:
        Some of ``explained_variance``, ``rotation``, ``linguistic_levels``, ``tasks``, ``pairs_instruction``,
        ``pairs_general``, ``pairs_any``, ``verb_shares``.

    Example:
        >>> weight_charts({})
        {}
    """
    have = {name: table for name, table in tables.items() if len(table)}
    charts: dict[str, go.Figure] = {}
    if "explained_variance" in have:
        charts["explained_variance"] = explained_variance(have["explained_variance"])
    if "rotation_layers" in have:
        charts["rotation"] = rotation(have["rotation_layers"])
    if "annotation_shares" in have:
        charts["linguistic_levels"] = levels(have["annotation_shares"])
        charts["tasks"] = tasks(have["annotation_shares"])
    if "head_pairs" in have:
        verbs = tables["head_verbs"]
        for kind in ("instruction", "general", "any"):
            charts[f"pairs_{kind}"] = head_changes(have["head_pairs"], verbs, kind)
    if "verb_shares" in have and _comparable(have["verb_shares"]):
        charts["verb_shares"] = verb_shares(have["verb_shares"])
    return charts


def weight_views(analysis: Analysis) -> dict[str, Any]:
    """What the page's template shows of the weights.

    Args:
        analysis: the run.

    Returns:
        ``charts`` (name -> figure as JSON values), ``concepts`` (packed, or ``None``), ``turned`` (the rotation in
        numbers, or ``None``), ``keywords`` (``rose`` and ``fell``, or ``None``), ``changed`` (heads counted, or
        ``None``) and ``told`` (sentences of findings by the part of the page they belong to).

    Example:
        >>> none = pd.DataFrame()
        >>> weight_views(Analysis([], none, none, none, [], {}))["concepts"] is None
        True
    """
    tables = {name: table for name, table in analysis.tables.items() if len(table)}
    concepts = tables.get("concepts")
    return {
        "charts": {name: figure.to_plotly_json() for name, figure in weight_charts(analysis.tables).items()},
        "concepts": None if concepts is None else pack_concepts(concepts, tables.get("rotation")),
        "turned": _turned(tables.get("rotation_layers")),
        "keywords": _keywords(tables.get("concept_keywords")),
        "changed": _changed(analysis.tables),
        "told": {part: _told(analysis.findings, names) for part, names in PARTS.items()},
    }


def _comparable(shares: pd.DataFrame) -> bool:
    """Whether somewhere in the depth there are two changed verbs of each kind, of which a mean can be told."""
    counts = shares[shares["share"].notna()].groupby(["layers", "kind"]).size().unstack(fill_value=0)
    return all(kind in counts for kind in KIND_COLORS) and bool((counts >= 2).all(axis=1).any())


def _told(findings: Sequence[Finding], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Sentences of one part; findings that cannot be tested for the same reason share one."""
    part = [finding for finding in findings if finding.name.startswith(names)]
    told: list[dict[str, Any]] = [{"text": sentence(f), "quiet": False} for f in part if f.testable]
    for why, same in untestable(part).items():
        text = sentence(same[0]) if len(same) == 1 else f"{len(same)} questions are not testable: {why}."
        told.append({"text": text, "quiet": True})
    return told


def _turned(table: pd.DataFrame | None) -> dict[str, Any] | None:
    """The rotation in numbers: over all layers, and the layers that turned most and least."""
    if table is None:
        return None
    ordered = table.sort_values(["mean_cosine", "layer"])
    means = table[["mean_cosine", "null_cosine_mean", "mean_angle", "null_angle_mean", "mean_left"]].mean()
    numbers = {str(name): float(value) for name, value in means.items()}
    for name, place in (("most", 0), ("least", -1)):
        row = ordered.iloc[place]
        numbers |= {f"{name}_layer": int(row["layer"]), f"{name}_cosine": float(row["mean_cosine"])}
    return {**numbers, "layers": len(table), "equal": int(table["equal"].sum())}


def _changed(tables: Mapping[str, pd.DataFrame]) -> dict[str, int] | None:
    """How many heads there are, and in how many of them pairs were gained or lost, by kind of their words."""
    if "head_pairs" not in tables:
        return None
    heads, verbs = tables["head_pairs"], tables["head_verbs"]
    counts = {"heads": len(heads), "any": int((heads["gained"] + heads["lost"] > 0).sum())}
    for kind in KIND_COLORS:
        rows = verbs[(verbs["kind"] == kind) & (verbs["gained"] + verbs["lost"] > 0)]
        counts[kind] = len(rows[["layer", "head"]].drop_duplicates())
    return counts


def _keywords(table: pd.DataFrame | None) -> dict[str, list[dict[str, Any]]] | None:
    if table is None:
        return None
    rose = table[table["rise"] > 0].sort_values("rise", ascending=False, kind="stable")
    fell = table[table["rise"] < 0].sort_values("rise", kind="stable")
    parts = {"rose": rose, "fell": fell}
    return {name: part.head(KEYWORDS).to_dict("records") for name, part in parts.items()}  # type: ignore[misc]
