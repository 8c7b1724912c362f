"""Builds the section of the concepts of feed-forward layers: concepts, rotation, and descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shiftlens.analyses.concepts.browser import pack_concepts
from shiftlens.analyses.concepts.compute import Described, concepts_table
from shiftlens.analyses.concepts.figures import explained_variance, levels, rotation, tasks
from shiftlens.analyses.concepts.findings import INTERPRETABLE, concept_evidence
from shiftlens.analyses.concepts.rotation_findings import not_comparable, rotation_findings, rotation_tables
from shiftlens.models.roles import ROLES
from shiftlens.results.finding import Finding
from shiftlens.results.render import render
from shiftlens.results.section import Section
from shiftlens.weights import compare_concepts, random_rotation
from shiftlens.weights.by_layer import ModelConcepts

DRAWS = 100
"""Number of random rotations."""
KEYWORDS = 10
"""Number of keywords listed that rose, and that fell."""
_HERE = Path(__file__).parent
_DIMENSIONS = ["role", "layer", "component", "ratio", "cumulative"]


def concepts_section(
    models: Mapping[str, ModelConcepts],
    described: Mapping[str, Described],
    shown: int = 30,
    seed: int = 0,
    why_not: str = "",
) -> Section:
    """Compare the concepts of two models, and return tables, tests and figures as a section.

    Args:
        models: Concepts of the model of each role, over the same words.
        described: Annotations of the same layers and concepts, by role.
        shown: Number of words of each concept in the tables.
        seed: Random seed for the bootstrap intervals and random rotations.
        why_not: Reason why the descriptions are incomplete and cannot be compared; ``""`` if they are complete.

    Returns:
        Findings ``concepts/rotation/all`` and ``.../1`` to ``4`` by quarter of the depth, and those of
        :func:`~shiftlens.analyses.concepts.findings.concept_evidence`; tables

        - ``concepts``, see :func:`~shiftlens.analyses.concepts.compute.concepts_table`;
        - ``explained_variance``: ``role, layer, component, ratio, cumulative``;
        - ``rotation`` and ``rotation_layers``, see :func:`rotation_tables`;
        - ``annotation_shares``, ``interpretability`` and ``concept_keywords``: the tables of ``concept_evidence``.

        Models that differ in layers or width have only the first two tables, and one finding with the reason.
    """
    concepts = concepts_table(models, described, shown)
    tables = {"concepts": concepts, "explained_variance": concepts[_DIMENSIONS]}
    base, tuned = (models[role] for role in ROLES)
    shapes = [(model.depth, next(iter(model.layers.values())).components.shape) for model in (base, tuned)]
    if shapes[0] != shapes[1]:
        (before, (k, width)), (after, (k_tuned, width_tuned)) = shapes
        differ = (
            f"base has {before} layers with {k} concepts of width {width}, "
            f"tuned {after} with {k_tuned} of width {width_tuned}"
        )
        return assemble({"rotation": [not_comparable(differ)]}, tables)
    rotations = {layer: compare_concepts(one, tuned.layers[layer]) for layer, one in base.layers.items()}
    k, width = shapes[0][1]
    null = random_rotation(width, k, DRAWS, seed)
    by_concept, by_layer = rotation_tables(base, tuned, rotations, null)
    tables |= {"rotation": by_concept, "rotation_layers": by_layer}
    findings = {"rotation": rotation_findings(by_layer, base.depth, null, seed)}
    if why_not:
        unanswered = replace(concept_evidence([], [], []).findings[0], why_not=why_not)
        return assemble(findings | {INTERPRETABLE: [unanswered]}, tables)
    # All layers of the model, with no concepts for layers that were not analyzed: so quarters are the model's.
    notes = [[described[role].get(layer, ()) for layer in range(base.depth)] for role in ROLES]
    none = np.zeros(0, np.int64)
    matches = [rotations[layer].match if layer in rotations else none for layer in range(base.depth)]
    evidence = concept_evidence(notes[0], notes[1], matches, seed)
    for kind, finding in zip(evidence.kinds, evidence.findings, strict=True):
        findings.setdefault(kind, []).append(finding)
    tables |= {
        "annotation_shares": evidence.shares,
        "interpretability": evidence.interpretability[evidence.interpretability["n"] > 0].reset_index(drop=True),
        "concept_keywords": evidence.keywords,
    }
    return assemble(findings, tables)


def assemble(findings: Mapping[str, list[Finding]], tables: Mapping[str, pd.DataFrame]) -> Section:
    """Build the section from its findings and tables, and leave out the figures that have no data.

    Args:
        findings: Findings by kind: ``rotation``, ``interpretable``, ``level`` and ``task``; kinds may be missing.
        tables: Tables of :func:`concepts_section`.
    """
    known = {name: table for name, table in tables.items() if len(table)}
    figures: dict[str, go.Figure] = {}
    if "explained_variance" in known:
        figures["explained_variance"] = explained_variance(known["explained_variance"])
    if "rotation_layers" in known:
        figures["rotation"] = rotation(known["rotation_layers"])
    if "annotation_shares" in known:
        figures["linguistic_levels"] = levels(known["annotation_shares"])
        figures["tasks"] = tasks(known["annotation_shares"])
    judged = {kind: Section(some).findings for kind, some in findings.items()}
    findings_by_figure = {
        "rotation": judged.get("rotation", ()),
        "levels": [*judged.get(INTERPRETABLE, ()), *judged.get("level", ())],
        "tasks": judged.get("task", ()),
    }
    html = render(
        _HERE / "section.html.j2",
        packed=pack_concepts(known["concepts"], known.get("rotation")) if "concepts" in known else None,
        turned=_turned(known.get("rotation_layers")),
        keywords=_keywords(known.get("concept_keywords")),
        figures=figures,
        findings=findings_by_figure,
    )
    return Section(
        findings=[finding for some in judged.values() for finding in some],
        tables=tables,
        title="What the feed-forward layers write: concepts" if html.strip() else "",
        figures=figures,
        html=html,
        rank=80,
        script=(_HERE / "browser.js").read_text(encoding="utf-8"),
    )


def _turned(table: pd.DataFrame | None) -> dict[str, Any] | None:
    """Return the rotation in numbers: means over all layers, and the layers that rotated most and least."""
    if table is None:
        return None
    ordered = table.sort_values(["mean_cosine", "layer"])
    means = table[["mean_cosine", "null_cosine_mean", "mean_angle", "null_angle_mean", "mean_left"]].mean()
    numbers = {str(name): float(value) for name, value in means.items()}
    for name, index in (("most", 0), ("least", -1)):
        row = ordered.iloc[index]
        numbers |= {f"{name}_layer": int(row["layer"]), f"{name}_cosine": float(row["mean_cosine"])}
    return {**numbers, "layers": len(table), "equal": int(table["equal"].sum())}


def _keywords(table: pd.DataFrame | None) -> dict[str, list[dict[str, Any]]] | None:
    if table is None:
        return None
    rose = table[table["rise"] > 0].sort_values("rise", ascending=False, kind="stable")
    fell = table[table["rise"] < 0].sort_values("rise", kind="stable")
    changed = {"rose": rose, "fell": fell}
    return {name: rows.head(KEYWORDS).to_dict("records") for name, rows in changed.items()}  # type: ignore[misc]
