"""Finds where two responses part ways, and what pushes a model towards the tuned model's token there.

The contrast of a model is the logit of the tuned model's token minus that of the base model's token, after the
prompt and what both responses have in common. Up to there the two models read the same text, so the token at which
they part is the first effect that tuning has on the response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shiftlens.analyses.shift_explained.compute import region_rows
from shiftlens.attribution.row import Row
from shiftlens.models.roles import ROLES
from shiftlens.prompts.encode import Encoded

_TOP = 3
_COLUMNS = ["method", "id", "dataset", "position", "tuned_token", "base_token"]
_REGION_COLUMNS = ["method", "role", "id", "dataset", "region", "tokens", "token_share", "net", "share"]


def parting_at(base: Sequence[int], tuned: Sequence[int]) -> int | None:
    """Return the first position at which two responses differ; ``None`` where one is the beginning of the other.

    Args:
        base: Ids of the base model's response.
        tuned: Ids of the tuned model's response.

    Example:
        >>> parting_at([5, 6, 7], [5, 8]), parting_at([5, 6], [5])
        (1, None)
    """
    return next((i for i, (a, b) in enumerate(zip(base, tuned, strict=False)) if a != b), None)


@dataclass(frozen=True)
class Parting:
    """The token at which the responses to one prompt part ways, as one model is explained there.

    Args:
        encoded: The prompt as fed to this model.
        position: Position of the token in the response, from 0.
        tuned_token: The tuned model's token as text.
        base_token: The base model's token as text.
        contrast: Logit of the tuned model's token minus that of the base model's.
        rows: Label of a method -> row that explains the contrast; it has one response token.
    """

    encoded: Encoded
    position: int
    tuned_token: str
    base_token: str
    contrast: float
    rows: Mapping[str, Row]

    def push(self, method: str) -> np.ndarray:
        """[prompt, 1] What each prompt token adds to the contrast, in logits.

        Args:
            method: Label of the method.
        """
        values: np.ndarray = self.rows[method].logarithmic()[: len(self.encoded.tokens)].astype(np.float64)
        return values

    def pushing(self, method: str) -> str:
        """Return the prompt tokens that push most towards the tuned model's token, as text with their push.

        Args:
            method: Label of the method.
        """
        push = self.push(method)[:, 0]
        order = [i for i in np.argsort(-push, kind="stable")[:_TOP] if push[i] > 0]
        return " · ".join(f"{self.encoded.tokens[i].strip() or '␣'} {push[i]:+.2f}" for i in order)


def parting_table(found: Mapping[str, Sequence[Parting]], methods: Sequence[str]) -> pd.DataFrame:
    """Build the table ``parting``, one row per method and prompt.

    Args:
        found: Role -> partings as this model is explained, in the same order for both.
        methods: Labels of the methods.

    Returns:
        ``method, id, dataset, position, tuned_token, base_token, contrast_base, contrast_tuned, pushing_base,
        pushing_tuned``.
    """
    rows = [
        {
            "method": method,
            "id": base.encoded.prompt.id,
            "dataset": base.encoded.prompt.dataset,
            "position": base.position,
            "tuned_token": base.tuned_token,
            "base_token": base.base_token,
            "contrast_base": base.contrast,
            "contrast_tuned": tuned.contrast,
            "pushing_base": base.pushing(method),
            "pushing_tuned": tuned.pushing(method),
        }
        for method in methods
        for base, tuned in zip(found["base"], found["tuned"], strict=True)
    ]
    values = [f"{what}_{role}" for what in ("contrast", "pushing") for role in ROLES]
    return pd.DataFrame(rows, columns=[*_COLUMNS, *values])


def parting_regions(found: Mapping[str, Sequence[Parting]], methods: Sequence[str]) -> pd.DataFrame:
    """Build the table ``parting_regions``, one row per method, role, prompt and region.

    Args:
        found: Role -> partings as this model is explained.
        methods: Labels of the methods.

    Returns:
        ``method``, ``role`` and the columns of :func:`~shiftlens.analyses.shift_explained.compute.region_rows`;
        shares are of what pushes towards the tuned model's token.
    """
    rows = [
        {"method": method, "role": role, **row}
        for method in methods
        for role in ROLES
        for each in found[role]
        for row in region_rows(each.encoded, each.push(method), np.maximum(each.push(method), 0.0))
    ]
    return pd.DataFrame(rows, columns=_REGION_COLUMNS)
