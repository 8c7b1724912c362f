"""Computes what each prompt token contributes to the difference between two models on one response.

The importance of a token for ``log p_tuned(y) - log p_base(y)`` is its importance for ``log p(y)`` in the tuned
model minus that in the base model: for gradients because they are linear, for exact removal by its definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from shiftlens.attribution.row import Row
from shiftlens.prompts.encode import Encoded, token_texts
from shiftlens.scores.samples import Measured

REGIONS = ("instruction", "context", "other")
"""Regions of a prompt."""


@dataclass(frozen=True)
class Shift:
    """The shift of one response, divided up over the prompt.

    Args:
        encoded: The prompt as fed to the tuned model.
        response_tokens: [response] Response tokens as text.
        values: [prompt, response] Contribution of each prompt token to the shift of each response token: in nats,
            or in logits where the logit difference is explained.
    """

    encoded: Encoded
    response_tokens: Sequence[str]
    values: Float[np.ndarray, "prompt response"]


def difference(base: Row, tuned: Row) -> Float[np.ndarray, "prompt response"]:
    """Subtract the base model's importance of prompt tokens from the tuned model's, float64.

    Args:
        base: Row of the base model, by a method whose values are logarithmic.
        tuned: Row of the tuned model on the same ids, by the same method.
    """
    n = len(tuned.prompt_index)
    return tuned.logarithmic()[:n].astype(np.float64) - base.logarithmic()[:n]


def shifts(
    base: Sequence[Measured], tuned: Sequence[Measured], tokenizers: Mapping[str, PreTrainedTokenizerBase]
) -> tuple[list[Shift], int]:
    """Compute the shift of the tuned model's responses.

    Args:
        base: The tuned model's responses as the base model reads them.
        tuned: The same responses as the tuned model reads them, in the same order.
        tokenizers: Role -> the model's tokenizer.

    Returns:
        The shifts, and how many prompts are left out because the models read other tokens.
    """
    found = []
    for before, after in zip(base, tuned, strict=True):
        rows = {"base": before.row, "tuned": after.row}
        pieces = [tokenizers[name].convert_ids_to_tokens(row.input_ids.tolist()) for name, row in rows.items()]
        if pieces[0] == pieces[1] and before.encoded.prompt_index == after.encoded.prompt_index:
            texts = token_texts(tokenizers["tuned"], after.row.response_ids.tolist())
            values = difference(before.row, after.row)
            found.append(Shift(after.encoded, texts, values))
    return found, len(tuned) - len(found)


def region_rows(
    encoded: Encoded, values: Float[np.ndarray, "prompt response"], size: Float[np.ndarray, "prompt response"]
) -> list[dict[str, Any]]:
    """Compute what each region of a prompt contributes.

    Args:
        encoded: The prompt.
        values: [prompt, response] Signed contributions.
        size: [prompt, response] What shares are taken of, e.g. ``|values|``.

    Returns:
        One row for each region that has tokens: ``id, dataset, region, tokens, token_share, net, share``. ``net``
        is the sum of its values, ``share`` its part of the sum of ``size``, NaN where that is 0.
    """
    regions, total, rows = np.array(encoded.regions), float(size.sum()), []
    for region in REGIONS:
        inside = regions == region
        if inside.any():
            rows.append(
                {
                    "id": encoded.prompt.id,
                    "dataset": encoded.prompt.dataset,
                    "region": region,
                    "tokens": int(inside.sum()),
                    "token_share": float(inside.mean()),
                    "net": float(values[inside].sum()),
                    "share": float(size[inside].sum()) / total if total else np.nan,
                }
            )
    return rows


def shift_table(found: Mapping[str, Sequence[Shift]]) -> pd.DataFrame:
    """Build the table ``shift``, one row per method, prompt and region.

    Args:
        found: Label of a method -> shifts by it.

    Returns:
        ``method`` and the columns of :func:`region_rows`; shares are of the sum of ``|shift|``.
    """
    rows = [
        {"method": label, **row}
        for label, each in found.items()
        for shift in each
        for row in region_rows(shift.encoded, shift.values, np.abs(shift.values))
    ]
    return pd.DataFrame(
        rows, columns=["method", "id", "dataset", "region", "tokens", "token_share", "net", "share"]
    )


def tokens_of_shift(found: Mapping[str, Sequence[Shift]]) -> pd.DataFrame:
    """Build the table ``shift_tokens``, one row per method and prompt token.

    Args:
        found: Label of a method -> shifts by it.

    Returns:
        ``method, id, dataset, position, token, region, net``; ``net`` is the sum over the response.
    """
    frames = [
        pd.DataFrame(
            {
                "method": label,
                "id": shift.encoded.prompt.id,
                "dataset": shift.encoded.prompt.dataset,
                "position": np.arange(len(shift.values)),
                "token": list(shift.encoded.tokens),
                "region": shift.encoded.regions,
                "net": shift.values.sum(axis=1),
            }
        )
        for label, each in found.items()
        for shift in each
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
