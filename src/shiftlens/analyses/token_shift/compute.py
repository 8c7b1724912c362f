"""Classifies the tokens of the tuned model's response by their rank under the base model.

A response token is *unshifted* at rank 1, *marginal* at rank 2 or 3, and *shifted* at any lower rank. The table
also holds the instruction's share of each token's importance, to test whether the instruction drives shifted
tokens.

Source: Lin et al. 2023 (URIAL), "The Unlocking Spell on Base LLMs".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Integer

KINDS = ("unshifted", "marginal", "shifted")
BINS = 10
"""Number of bins of relative position in a response."""
STEP = 5
"""Number of tokens in a bin of absolute position."""


def kinds(rank: Integer[np.ndarray, " response"]) -> list[str]:
    """Classify each response token by its rank under the base model.

    Args:
        rank: [response] Rank of each token; 1 is the most probable token.

    Returns:
        [response] kinds, each one of :data:`KINDS`.

    Example:
        >>> kinds(np.array([1, 2, 3, 4]))
        ['unshifted', 'marginal', 'marginal', 'shifted']
    """
    return [KINDS[index] for index in np.digitize(rank, [2, 4])]


def instruction_share(
    importance: Float[np.ndarray, "sources response"], instruction: Bool[np.ndarray, " prompt"]
) -> Float[np.ndarray, " response"]:
    """Compute which share of each response token's positive importance in the prompt falls on the instruction.

    Args:
        importance: [sources, response] Raw importance or the gradient of log p; the prompt's tokens come first.
        instruction: [prompt] Whether each token is an instruction token.

    Returns:
        [response] shares; NaN if no prompt token has a positive importance.

    Example:
        >>> instruction_share(np.array([[3.0, -1.0], [1.0, -1.0]]), np.array([True, False])).tolist()
        [0.75, nan]
    """
    positive = np.maximum(importance[: len(instruction)].astype(float), 0.0)  # [prompt, response]
    total = positive.sum(axis=0)  # [response]
    return np.divide(positive[instruction].sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0)


def shift_rows(
    prompt_id: str,
    dataset: str,
    tokens: Sequence[str],
    rank: Integer[np.ndarray, " response"],
    share: Float[np.ndarray, " response"],
) -> pd.DataFrame:
    """Build the rows of one response, one per response token.

    Args:
        prompt_id: Id of the prompt.
        dataset: Data set of the prompt.
        tokens: [response] Tokens as text.
        rank: [response] Rank of each token under the base model; 1 is the most probable token.
        share: [response] Result of :func:`instruction_share` for the tuned model.

    Returns:
        ``id, dataset, position, relative, token, base_rank, kind, instruction_share``; ``relative`` is the
        middle of the token in the response, from 0 to 1.
    """
    position = np.arange(len(rank))
    return pd.DataFrame(
        {
            "id": prompt_id,
            "dataset": dataset,
            "position": position,
            "relative": (position + 0.5) / max(len(rank), 1),
            "token": list(tokens),
            "base_rank": rank,
            "kind": kinds(rank),
            "instruction_share": share,
        }
    )


def shift_profile(table: pd.DataFrame) -> pd.DataFrame:
    """Compute the share of each kind of token by position in the response.

    Args:
        table: Rows from :func:`shift_rows`.

    Returns:
        ``dataset, scale, bin, unshifted, marginal, shifted, n``: ``scale`` is ``relative`` (:data:`BINS` bins over
        the response) or ``absolute`` (bins of :data:`STEP` tokens); ``n`` is the number of tokens in the bin.
    """
    tables = []
    for scale, bins in (
        ("relative", (table["relative"] * BINS).astype(int)),
        ("absolute", table["position"] // STEP),
    ):
        counts = table.groupby(["dataset", bins.rename("bin"), "kind"], sort=False).size().unstack(fill_value=0)
        counts = counts.reindex(columns=list(KINDS), fill_value=0).sort_index(level="bin", sort_remaining=False)
        total = counts.sum(axis=1)
        shares = counts.div(total, axis=0).assign(n=total).reset_index()
        shares.insert(1, "scale", scale)
        tables.append(shares)
    return pd.concat(tables, ignore_index=True).rename_axis(columns=None)
