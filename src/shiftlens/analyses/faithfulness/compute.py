"""Faithfulness: how well gradient x embedding ranks the prompt tokens, held against exact ablation.

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

from shiftlens.models.roles import ROLES
from shiftlens.results.finding import Finding
from shiftlens.stats.one_sample import mean_of

COMPARED = {
    "zero": "gradient x embedding and ablation to zero",
    "mean": "gradient x embedding and ablation to the mean embedding",
    "zero_vs_mean": "the two ablations",
}
"""What is compared, by the name it has in the table."""


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


def faithfulness_findings(table: pd.DataFrame, seed: int = 0) -> list[Finding]:
    """Mean rank correlation of both models, and whether it changed; prompts are the unit.

    Args:
        table: rows from :func:`faithfulness_rows`; the prompts are a sample of all data sets together.
        seed: of the bootstrap intervals.

    Returns:
        Findings named ``faithfulness/<replaced_by>_in_<role>`` and ``faithfulness/<replaced_by>_base_vs_tuned``.
    """
    means, data = prompt_means(table), ", ".join(table["dataset"].unique())
    findings = []
    for by in table["replaced_by"].unique():
        wide = means[means["replaced_by"] == by].pivot(index=["dataset", "id"], columns="role", values="spearman")
        wide = wide.reindex(columns=list(ROLES))
        for role in ROLES:
            values = wide[role].dropna().to_numpy(float)
            findings.append(
                mean_of(values, seed).finding(
                    name=f"faithfulness/{by}_in_{role}",
                    data=data,
                    role=role,
                    question=f"Do {COMPARED[by]} rank the prompt tokens alike in the {role} model?",
                    null="mean rank correlation is 0",
                    test="one-sample t, two-sided",
                    groups={role: values},
                    n=len(values),
                    effect_name="mean Spearman correlation",
                )
            )
        both = wide.dropna()
        base, tuned = both["base"].to_numpy(float), both["tuned"].to_numpy(float)
        findings.append(
            mean_of(tuned - base, seed).finding(
                name=f"faithfulness/{by}_base_vs_tuned",
                data=data,
                role="both",
                question=f"Do {COMPARED[by]} agree as well in the tuned model as in the base?",
                null="mean difference of rank correlation, tuned minus base on the same prompts, is 0",
                test="paired t, two-sided",
                groups={"base": base, "tuned": tuned},
                n=len(both),
                effect_name="difference of Spearman correlation",
            )
        )
    return findings
