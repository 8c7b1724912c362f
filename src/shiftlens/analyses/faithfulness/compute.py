"""Compares how importance ranks the prompt tokens with how exact ablation ranks them.

The importance is the first-order estimate of the change if an embedding is set to zero. For each response token,
the rank correlation over the prompt tokens compares estimate and ablation; like the score, this correlation does
not change with a positive factor per response token. The agreement of two kinds of ablation (zero and mean
embedding) serves as reference, because no estimate can agree with both much better than these agree with each
other.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

CERTAIN = 0.9
"""Response tokens of at least this probability are averaged separately: little is left to explain there."""


def rank_correlation(
    estimate: Float[np.ndarray, "prompt response"], exact: Float[np.ndarray, "prompt response"]
) -> Float[np.ndarray, " response"]:
    """Compute Spearman's rank correlation over the prompt tokens, for each response token.

    Args:
        estimate: [prompt, response] Importance.
        exact: [prompt, response] Importance by ablation; a positive factor per response token changes nothing.

    Returns:
        [response] correlations; NaN for fewer than two prompt tokens, or if estimate or ablation does not vary.

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
    by: str,
    spearman: Float[np.ndarray, " response"],
    probability: Float[np.ndarray, " response"],
) -> pd.DataFrame:
    """Build the rows of one response, one per response token.

    Args:
        role: Model, ``base`` or ``tuned``.
        prompt_id: Id of the prompt.
        dataset: Data set of the prompt.
        by: How tokens were removed, such as ``zero`` or ``mean``; ``zero_vs_mean`` for the comparison of these two
            ablations.
        spearman: [response] Result of :func:`rank_correlation`.
        probability: [response] Probability of each response token; little is left to explain near 1.

    Returns:
        ``role, id, dataset, by, position, spearman, probability``.
    """
    return pd.DataFrame(
        {
            "role": role,
            "id": prompt_id,
            "dataset": dataset,
            "by": by,
            "position": np.arange(len(spearman)),
            "spearman": spearman,
            "probability": probability,
        }
    )


def prompt_means(table: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean correlation of each response.

    Args:
        table: Rows from :func:`faithfulness_rows`.

    Returns:
        ``role, by, dataset, id, spearman``; responses without any correlation are left out.
    """
    known = table.dropna(subset="spearman")
    return known.groupby(["role", "by", "dataset", "id"], sort=False)["spearman"].mean().reset_index()


def certainty(table: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean correlation of importance and ablation for near-certain and for other response tokens.

    Args:
        table: Rows from :func:`faithfulness_rows`.

    Returns:
        ``role, certain, spearman, n``: ``certain`` tells whether the tokens have a probability of at least
        :data:`CERTAIN`, ``n`` is their number; tokens without a correlation are left out.
    """
    known = table[table["by"] != "zero_vs_mean"].dropna(subset="spearman")
    grouped = known.groupby([known["role"], (known["probability"] >= CERTAIN).rename("certain")], sort=False)
    return grouped["spearman"].agg(spearman="mean", n="size").reset_index()
