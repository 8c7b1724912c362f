"""Builds the table of the concepts of both models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from shiftlens.annotate import Annotation
from shiftlens.weights.by_layer import ModelConcepts

Described = Mapping[int, Sequence[Annotation]]
"""Layer -> the annotation of each of its concepts."""


def concepts_table(
    models: Mapping[str, ModelConcepts], described: Mapping[str, Described], shown: int
) -> pd.DataFrame:
    """Build the table of concepts, with one row per role, layer and component.

    Args:
        models: Concepts of the model of each role, over the same words.
        described: Annotations of the same layers and concepts, by role.
        shown: Number of words of each concept in the table.

    Returns:
        Table with columns ``role, layer, component, ratio, cumulative, words, cosines, description, level, task,
        p, note``.
    """
    rows = []
    for role, model in models.items():
        for layer, layer_concepts in model.layers.items():
            ratio = layer_concepts.explained_variance_ratio.astype(float)
            for c, (annotation, cumulative) in enumerate(
                zip(described[role][layer], np.cumsum(ratio).tolist(), strict=True)
            ):
                words, cosines = zip(*model.named(layer, c, shown), strict=True)
                rows.append((
                    role, layer, c, float(ratio[c]), cumulative, list(words), list(cosines),
                    annotation.description, annotation.level, annotation.task, annotation.p, annotation.note,
                ))  # fmt: skip
    columns = ["role", "layer", "component", "ratio", "cumulative", "words", "cosines"]
    table = pd.DataFrame(rows, columns=[*columns, "description", "level", "task", "p", "note"])
    return table.astype({"p": "float64"})
