"""How far a reduced precision moves the results: the same samples once more in float32, compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shiftlens.attribution.row import Row
from shiftlens.scores import score

REDUCED = ("bfloat16", "float16", "tf32")
"""Precisions that are checked against float32."""


def agreement(rows: Sequence[Row], exact: Sequence[Row], L: int = 10) -> dict[str, float | int]:
    """Compare rows with rows of the same ids in float32.

    Args:
        rows: in a reduced precision.
        exact: in float32, same order.
        L: levels of the score compared.

    Returns:
        ``n``: samples; ``correlation``: Pearson's over all entries, each column divided by its largest exact
        entry; ``correlation_lowest``: of the sample where it is lowest; ``error``: largest difference over the
        column's largest entry, median over columns; ``same_score``: share of entries with the same score S.

    Raises:
        ValueError: two rows are not of the same ids.
    """
    per_sample, pairs, errors, same = [], [], [], []
    for row, truth in zip(rows, exact, strict=True):
        if not np.array_equal(row.input_ids, truth.input_ids):
            raise ValueError("rows to compare must have the same ids")
        largest = np.abs(truth.relative()).max(0, initial=0.0)
        if not (largest > 0).any() or row.relative()[:, largest > 0].size < 3:
            continue  # nothing to correlate
        a, b = (r.relative()[:, largest > 0] / largest[largest > 0] for r in (row, truth))
        per_sample.append(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        pairs.append(np.stack([a.ravel(), b.ravel()]))
        errors += list(np.abs(a - b).max(0))
        same.append((score(row.relative(), L, 0) == score(truth.relative(), L, 0)).ravel())
    if not pairs:
        return {"n": 0}
    return {
        "n": len(pairs),
        "correlation": float(np.corrcoef(np.concatenate(pairs, axis=1))[0, 1]),
        "correlation_lowest": float(min(per_sample)),
        "error": float(np.median(errors)),
        "same_score": float(np.concatenate(same).mean()),
    }
