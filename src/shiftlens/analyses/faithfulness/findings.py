"""Tests whether importance ranks prompt tokens as ablation does, and equally well in both models."""

from __future__ import annotations

import pandas as pd

from shiftlens.analyses.faithfulness.compute import prompt_means
from shiftlens.models.roles import ROLES
from shiftlens.results.finding import Finding
from shiftlens.stats.one_sample import mean_of

COMPARED = {
    "zero": "gradient x embedding and ablation to zero",
    "mean": "gradient x embedding and ablation to the mean embedding",
    "delete": "gradient x embedding and deletion of the token",
    "neutral": "gradient x embedding and replacement by a neutral token",
    "zero_vs_mean": "the ablations to zero and to the mean embedding",
}
"""Value of ``by`` in the table -> what is compared, in words."""


def faithfulness_findings(table: pd.DataFrame, seed: int = 0) -> list[Finding]:
    """Test the mean rank correlation in each model, and its difference between the models; the unit is the prompt.

    Args:
        table: Rows from :func:`~shiftlens.analyses.faithfulness.compute.faithfulness_rows`; a sample of the
            prompts of all data sets, tested together.
        seed: Random seed for the bootstrap intervals.

    Returns:
        Findings named ``faithfulness/<by>_in_<role>`` and ``faithfulness/<by>_base_vs_tuned``.
    """
    means, data = prompt_means(table), ", ".join(table["dataset"].unique())
    findings = []
    for by in table["by"].unique():
        wide = means[means["by"] == by].pivot(index=["dataset", "id"], columns="role", values="spearman")
        wide = wide.reindex(columns=list(ROLES))
        for role in ROLES:
            values = wide[role].dropna().to_numpy(float)
            findings.append(
                mean_of(values, seed).finding(
                    name=f"faithfulness/{by}_in_{role}",
                    view="faithfulness",
                    measure=f"rank correlation of {COMPARED[by]}",
                    headline=False,
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
                view="faithfulness",
                measure=f"rank correlation of {COMPARED[by]}",
                headline=False,
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
