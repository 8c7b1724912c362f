"""What feed-forward layers know, base against tuned: concepts, their rotation, and their descriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from shiftlens.analyses.concepts.findings import concept_evidence
from shiftlens.analyses.concepts.rotation_findings import not_comparable, rotation_findings, rotation_tables
from shiftlens.annotate import Annotation
from shiftlens.models.roles import ROLES
from shiftlens.results.analysis import Section
from shiftlens.weights import compare_concepts, random_rotation
from shiftlens.weights.by_layer import ModelConcepts

Described = Mapping[int, Sequence[Annotation]]
"""Layer -> the annotation of each of its concepts."""
DRAWS = 100
"""Random rotations."""


def concepts_section(
    models: Mapping[str, ModelConcepts],
    described: Mapping[str, Described],
    shown: int = 30,
    seed: int = 0,
    why_not: str = "",
) -> Section:
    """Tables and tests of the concepts of a pair of models.

    Args:
        models: role -> its concepts, over the same words.
        described: role -> annotations of the same layers and concepts.
        shown: words of each concept that the tables have.
        seed: of the bootstrap and of random rotations.
        why_not: why descriptions are not complete, and so not to be compared; ``""`` if they are.

    Returns:
        Findings ``concepts/rotation/all`` and ``.../1`` to ``4`` by quarter of the depth, and those of
        :func:`~shiftlens.analyses.concepts.findings.concept_evidence`; tables

        - ``concepts``: ``role, layer, component, ratio, cumulative, words, cosines, description, level, task, p,
          note``;
        - ``explained_variance``: ``role, layer, component, ratio, cumulative``;
        - ``rotation`` and ``rotation_layers``, see :func:`rotation_tables`;
        - ``annotation_shares``, ``interpretability`` and ``concept_keywords``: the tables of ``concept_evidence``.

        Models that differ in layers or width have the first two alone, and one finding that says why.
    """
    concepts = concepts_table(models, described, shown)
    tables = {
        "concepts": concepts,
        "explained_variance": concepts[["role", "layer", "component", "ratio", "cumulative"]],
    }
    base, tuned = (models[role] for role in ROLES)
    shapes = [(model.depth, next(iter(model.layers.values())).components.shape) for model in (base, tuned)]
    if shapes[0] != shapes[1]:
        (before, (k, width)), (after, (k_tuned, width_tuned)) = shapes
        differ = (
            f"base has {before} layers with {k} concepts of width {width}, "
            f"tuned {after} with {k_tuned} of width {width_tuned}"
        )
        return Section([not_comparable(differ)], tables)
    rotations = {layer: compare_concepts(found, tuned.layers[layer]) for layer, found in base.layers.items()}
    k, width = shapes[0][1]
    null = random_rotation(width, k, DRAWS, seed)
    rotation, layers = rotation_tables(base, tuned, rotations, null)
    tables |= {"rotation": rotation, "rotation_layers": layers}
    findings = rotation_findings(layers, base.depth, null, seed)
    if why_not:
        unanswered = replace(concept_evidence([], [], []).findings[0], note=f"not testable: {why_not}")
        return Section([*findings, unanswered], tables)
    # By depth: a layer that was not looked at has no concepts, so that quarters are those of the model.
    notes = [[described[role].get(layer, ()) for layer in range(base.depth)] for role in ROLES]
    none = np.zeros(0, np.int64)
    matches = [rotations[layer].match if layer in rotations else none for layer in range(base.depth)]
    evidence = concept_evidence(notes[0], notes[1], matches, seed)
    tables |= {
        "annotation_shares": evidence.shares,
        "interpretability": evidence.interpretability[evidence.interpretability["n"] > 0].reset_index(drop=True),
        "concept_keywords": evidence.keywords,
    }
    return Section([*findings, *evidence.findings], tables)


def concepts_table(
    models: Mapping[str, ModelConcepts], described: Mapping[str, Described], shown: int
) -> pd.DataFrame:
    """One row per role, layer and component, see :func:`concepts_section`."""
    rows = []
    for role, model in models.items():
        for layer, found in model.layers.items():
            ratio = found.explained_variance_ratio.astype(float)
            for c, (annotation, cumulative) in enumerate(
                zip(described[role][layer], np.cumsum(ratio).tolist(), strict=True)
            ):
                words, cosines = zip(*model.named(layer, c, shown), strict=True)
                told = (annotation.description, annotation.level, annotation.task, annotation.p, annotation.note)
                rows.append((role, layer, c, float(ratio[c]), cumulative, list(words), list(cosines), *told))
    columns = ["role", "layer", "component", "ratio", "cumulative", "words", "cosines"]
    table = pd.DataFrame(rows, columns=[*columns, "description", "level", "task", "p", "note"])
    return table.astype({"p": "float64"})
