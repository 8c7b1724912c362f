"""Compares how importance ranks the prompt tokens with how their exact removal ranks them.

For each response token, the rank correlation over the prompt tokens compares the importance by a method with what
the token loses if an embedding is replaced; like the score, this correlation does not change with a positive
factor per response token. The agreement of two kinds of removal (zero and mean embedding) serves as ceiling,
because no importance can agree with both much better than these agree with each other.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

CERTAIN = 0.9
"""Response tokens of at least this probability are averaged separately: little is left to explain there."""
ALL_REMOVALS = "removals"
"""Stands in the column ``method`` for the comparison of two removals, in ``at`` for the mean over all removals."""


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
    importance: Mapping[str, Float[np.ndarray, "prompt response"]],
    exact: Mapping[str, Float[np.ndarray, "prompt response"]],
    itself: Mapping[str, str],
    probability: Float[np.ndarray, " response"],
) -> pd.DataFrame:
    """Compare every method with every removal, and the removals with each other, for one response.

    Args:
        importance: [prompt, response] importance by label of the method.
        exact: [prompt, response] importance by exact removal, by what replaces an embedding.
        itself: Label of a method that is a removal -> what it replaces an embedding by; it is not compared with
            itself.
        probability: [response] Probability of each response token; little is left to explain near 1.

    Returns:
        ``method, by, position, spearman, probability``, one row per comparison and response token. ``method`` is
        :data:`ALL_REMOVALS` and ``by`` is, e.g., ``zero_vs_mean`` where two removals are compared.

    Example:
        >>> one = np.array([[1.0], [2.0]])
        >>> rows = faithfulness_rows({"mine": one}, {"zero": one, "mean": -one}, {}, np.array([0.5]))
        >>> rows[["method", "by", "spearman"]].to_numpy().tolist()
        [['mine', 'zero', 1.0], ['mine', 'mean', -1.0], ['removals', 'zero_vs_mean', -1.0]]
    """
    pairs = {
        (method, by): (values, removed)
        for method, values in importance.items()
        for by, removed in exact.items()
        if itself.get(method) != by
    } | {(ALL_REMOVALS, f"{one}_vs_{two}"): (exact[one], exact[two]) for one, two in combinations(exact, 2)}
    frames = [
        pd.DataFrame(
            {
                "method": method,
                "by": by,
                "position": np.arange(len(probability)),
                "spearman": rank_correlation(*compared),
                "probability": probability,
            }
        )
        for (method, by), compared in pairs.items()
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["method", "by"])


def prompt_means(table: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean correlation of each response.

    Args:
        table: Rows from :func:`faithfulness_rows` with the further columns ``role, dataset, id``.

    Returns:
        ``role, method, by, dataset, id, spearman``; responses without any correlation are left out.
    """
    known = table.dropna(subset="spearman")
    return known.groupby(["role", "method", "by", "dataset", "id"], sort=False)["spearman"].mean().reset_index()


def correlation_metrics(table: pd.DataFrame) -> pd.DataFrame:
    """Put the mean correlations of each response in the form of the other metrics.

    Args:
        table: Rows from :func:`faithfulness_rows` with the further columns ``role, dataset, id``.

    Returns:
        ``role, dataset, id, method, scope, metric, at, measure, value``: ``at`` is what replaces an embedding, or
        :data:`ALL_REMOVALS` for the mean over all removals, where a method was compared with each of them.
    """
    means = prompt_means(table[table["method"] != ALL_REMOVALS]).rename(columns={"by": "at", "spearman": "value"})
    groups = means.groupby(["role", "dataset", "id", "method"], sort=False)["value"]
    over_all = groups.agg(["mean", "size"]).reset_index()
    over_all = over_all[over_all["size"] == means["at"].nunique()].rename(columns={"mean": "value"})
    both = pd.concat([means, over_all.drop(columns="size").assign(at=ALL_REMOVALS)], ignore_index=True)
    return both.assign(scope="token", metric="correlation", measure="")


def certainty(table: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean correlation of importance and removal for near-certain and for other response tokens.

    Args:
        table: Rows from :func:`faithfulness_rows` with the further column ``role``.

    Returns:
        ``role, method, certain, spearman, n``: ``certain`` tells whether the tokens have a probability of at least
        :data:`CERTAIN`, ``n`` is their number; tokens without a correlation are left out.
    """
    known = table[table["method"] != ALL_REMOVALS].dropna(subset="spearman")
    certain = (known["probability"] >= CERTAIN).rename("certain")
    grouped = known.groupby([known["role"], known["method"], certain], sort=False)
    return grouped["spearman"].agg(spearman="mean", n="size").reset_index()
