"""Compares how the importance ranks the prompt tokens with how exact ablation ranks them.

The importance is the first-order estimate of what happens if an embedding is set to zero. For each response token
the two orders of the prompt tokens are compared by their rank correlation, which a positive factor per response
token does not change, just as it does not change the score. How far two ways of ablation agree with each
other is the yardstick: no estimate can agree with both much better.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

CERTAIN = 0.9
"""Response tokens of at least this probability are told apart: little is left to explain there."""


def rank_correlation(
    estimate: Float[np.ndarray, "prompt response"], exact: Float[np.ndarray, "prompt response"]
) -> Float[np.ndarray, " response"]:
    """Spearman's rank correlation over the prompt tokens, for each response token.

    Args:
        estimate: [prompt, response] importance.
        exact: [prompt, response] ablation importance; a positive factor per response token changes nothing.

    Returns:
        [response] correlations; NaN with fewer than two prompt tokens, or where one side does not vary.

    Example:
        >>> rank_correlation(np.array([[1.0], [2.0], [9.0]]), np.array([[0.1], [0.3], [0.2]])).round(6)
        array([0.5])
    """
    if len(estimate) < 2:
        return np.full(estimate.shape[1], np.nan)
    ranks = [stats.rankdata(values, axis=0) for values in (estimate, exact)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return np.asarray(stats.pearsonr(*ranks, axis=0).statistic, float)


def faithfulness_rows(
    role: str,
    prompt_id: str,
    dataset: str,
    replaced_by: str,
    spearman: Float[np.ndarray, " response"],
    probability: Float[np.ndarray, " response"],
) -> pd.DataFrame:
    """The rows of one response: ``role, id, dataset, replaced_by, position, spearman, probability``.

    Args:
        role: the model.
        prompt_id: the prompt.
        dataset: its data set.
        replaced_by: what took the place of the embeddings, ``zero`` or ``mean``; or ``zero_vs_mean``, both
            ablations held against each other.
        spearman: [response] from :func:`rank_correlation`.
        probability: [response] p of each response token: where it is near 1, little is left to explain.
    """
    return pd.DataFrame(
        {
            "role": role,
            "id": prompt_id,
            "dataset": dataset,
            "replaced_by": replaced_by,
            "position": np.arange(len(spearman)),
            "spearman": spearman,
            "probability": probability,
        }
    )


def prompt_means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean correlation of each response: ``role, replaced_by, id, spearman``; responses without any are left out.

    Args:
        table: rows from :func:`faithfulness_rows`.
    """
    known = table.dropna(subset="spearman")
    return known.groupby(["role", "replaced_by", "dataset", "id"], sort=False)["spearman"].mean().reset_index()


def certainty(table: pd.DataFrame) -> pd.DataFrame:
    """Mean correlation of importance and ablation for near-certain and for other response tokens.

    Args:
        table: Rows from :func:`faithfulness_rows`.

    Returns:
        ``role, certain, spearman, n``: ``certain`` says whether the tokens have a probability of at least
        :data:`CERTAIN`; tokens without a correlation are left out.
    """
    known = table[table["replaced_by"] != "zero_vs_mean"].dropna(subset="spearman")
    grouped = known.groupby([known["role"], (known["probability"] >= CERTAIN).rename("certain")], sort=False)
    return grouped["spearman"].agg(spearman="mean", n="size").reset_index()
