"""Finds the tokens of the tuned model's response that the base model would have written too.

Source: Lin et al. 2023 (URIAL), "The Unlocking Spell on Base LLMs": by the place that a response token of the
tuned model has in the base model's ranking it is *unshifted* (1), *marginal* (2 or 3) or *shifted* (below).
Joined here with the importance: are shifted tokens those that the instruction drives?
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Integer

KINDS = ("unshifted", "marginal", "shifted")
BINS = 10
"""Bins of relative position in a response."""
STEP = 5
"""Tokens in a bin of absolute position."""


def kinds(rank: Integer[np.ndarray, " response"]) -> list[str]:
    """Kind of each response token by its rank under the base model; 1 is the most probable.

    Example:
        >>> kinds(np.array([1, 2, 3, 4]))
        ['unshifted', 'marginal', 'marginal', 'shifted']
    """
    return [KINDS[place] for place in np.digitize(rank, [2, 4])]


def instruction_share(
    importance: Float[np.ndarray, "sources response"], instruction: Bool[np.ndarray, " prompt"]
) -> Float[np.ndarray, " response"]:
    """Share of each response token's positive importance in the prompt that falls on the instruction.

    Args:
        importance: [sources, response] raw importance or the gradient of log p, the prompt's tokens first.
        instruction: [prompt] which tokens are instruction tokens.

    Returns:
        [response] shares; NaN where no prompt token has a positive importance.

    Example:
        >>> instruction_share(np.array([[3.0, -1.0], [1.0, -1.0]]), np.array([True, False])).tolist()
        [0.75, nan]
    """
    positive = np.maximum(importance[: len(instruction)].astype(float), 0.0)
    total = positive.sum(axis=0)
    return np.divide(positive[instruction].sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0)


def shift_rows(
    prompt_id: str,
    dataset: str,
    tokens: Sequence[str],
    rank: Integer[np.ndarray, " response"],
    share: Float[np.ndarray, " response"],
) -> pd.DataFrame:
    """The rows of one response: ``id, dataset, position, relative, token, base_rank, kind, instruction_share``.

    Args:
        prompt_id: the prompt.
        dataset: its data set.
        tokens: [response] tokens as text.
        rank: [response] rank under the base model.
        share: [response] from :func:`instruction_share`, of the tuned model.
    """
    place = np.arange(len(rank))
    return pd.DataFrame(
        {
            "id": prompt_id,
            "dataset": dataset,
            "position": place,
            "relative": (place + 0.5) / max(len(rank), 1),
            "token": list(tokens),
            "base_rank": rank,
            "kind": kinds(rank),
            "instruction_share": share,
        }
    )


def shift_profile(table: pd.DataFrame) -> pd.DataFrame:
    """Share of each kind by position: ``dataset, scale, bin, unshifted, marginal, shifted, n``.

    Args:
        table: rows from :func:`shift_rows`.

    Returns:
        ``scale`` is ``relative`` (``bin`` of :data:`BINS` over the response) or ``absolute`` (``bin`` of
        :data:`STEP` tokens each); ``n`` is the number of tokens.
    """
    parts = []
    for scale, place in (
        ("relative", (table["relative"] * BINS).astype(int)),
        ("absolute", table["position"] // STEP),
    ):
        counts = table.groupby(["dataset", place.rename("bin"), "kind"], sort=False).size().unstack(fill_value=0)
        counts = counts.reindex(columns=list(KINDS), fill_value=0).sort_index(level="bin", sort_remaining=False)
        total = counts.sum(axis=1)
        shares = counts.div(total, axis=0).assign(n=total).reset_index()
        shares.insert(1, "scale", scale)
        parts.append(shares)
    return pd.concat(parts, ignore_index=True).rename_axis(columns=None)
