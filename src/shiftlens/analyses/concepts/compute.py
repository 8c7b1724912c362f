"""Table of the concepts of both models."""

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
    """One row per role, layer and component.

    Args:
        models: Role -> its concepts, over the same words.
        described: Role -> annotations of the same layers and concepts.
        shown: Words of each concept that the table has.

    Returns:
        ``role, layer, component, ratio, cumulative, words, cosines, description, level, task, p, note``.
    """
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
