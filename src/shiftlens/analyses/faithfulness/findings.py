"""Tests how faithful each method is to exact removal, in each model and in one against the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import pandas as pd

from shiftlens.analyses.faithfulness.compute import ALL_REMOVALS, prompt_means
from shiftlens.analyses.faithfulness.rating import METRICS, RANDOM, Rating
from shiftlens.attribution.methods import Ablation
from shiftlens.models.roles import ROLES
from shiftlens.results.finding import Finding
from shiftlens.stats.multiple_testing import holm
from shiftlens.stats.one_sample import mean_of


def faithfulness_findings(
    table: pd.DataFrame, words: Mapping[str, str], removals: Collection[str] = (), seed: int = 0
) -> list[Finding]:
    """Test the mean rank correlation with removal in each model, and its difference between the models.

    The unit is the prompt; the prompts of all data sets are tested together. Where several methods answer one
    question, p is corrected for their number.

    Args:
        table: Rows from :func:`~shiftlens.analyses.faithfulness.compute.faithfulness_rows` with the further
            columns ``role, dataset, id``.
        words: Label of each method -> what a finding calls it.
        removals: Labels of methods that are themselves removals; their agreement with the others is tested anyway.
        seed: Random seed for the bootstrap intervals.

    Returns:
        Findings named ``faithfulness/<by>_in_<role>`` and ``faithfulness/<by>_base_vs_tuned`` for the gradient and
        for the agreement of two removals; for other methods their label stands before ``<by>``.
    """
    means, data = prompt_means(table), ", ".join(table["dataset"].unique())
    found: list[tuple[tuple[str, bool, str], Finding]] = []
    pairs = table[["method", "by"]].drop_duplicates()
    for method, by in pairs[~pairs["method"].isin([RANDOM, *removals])].itertuples(index=False):
        label = by if method in ("gradient", ALL_REMOVALS) else f"{method}_{by}"
        compared = _compared(method, by, words)
        rows = means[(means["method"] == method) & (means["by"] == by)]
        wide = rows.pivot(index=["dataset", "id"], columns="role", values="spearman").reindex(columns=list(ROLES))
        for role in ROLES:
            values = wide[role].dropna().to_numpy(float)
            finding = mean_of(values, seed).finding(
                name=f"faithfulness/{label}_in_{role}",
                view="faithfulness",
                measure=f"rank correlation of {compared}",
                headline=False,
                data=data,
                role=role,
                question=f"Do {compared} rank the prompt tokens alike in the {role} model?",
                null="mean rank correlation is 0",
                test="one-sample t, two-sided",
                groups={role: values},
                n=len(values),
                effect_name="mean Spearman correlation",
            )
            found.append(((by, method == ALL_REMOVALS, role), finding))
        both = wide.dropna()
        base, tuned = both["base"].to_numpy(float), both["tuned"].to_numpy(float)
        finding = mean_of(tuned - base, seed).finding(
            name=f"faithfulness/{label}_base_vs_tuned",
            view="faithfulness",
            measure=f"rank correlation of {compared}",
            headline=False,
            data=data,
            role="both",
            question=f"Do {compared} agree as well in the tuned model as in the base?",
            null="mean difference of rank correlation, tuned minus base on the same prompts, is 0",
            test="paired t, two-sided",
            groups={"base": base, "tuned": tuned},
            n=len(both),
            effect_name="difference of Spearman correlation",
        )
        found.append(((by, method == ALL_REMOVALS, "both"), finding))
    return _over_methods(found)


def rating_findings(ratings: Sequence[Rating], words: Mapping[str, str], seed: int = 0) -> list[Finding]:
    """Report the main metrics of each method against random importance, and base against tuned.

    Args:
        ratings: Result of :func:`~shiftlens.analyses.faithfulness.rating.rate`.
        words: Label of each method -> what a finding calls it; the first one's rank correlation is the headline.
        seed: Random seed for the bootstrap intervals.

    Returns:
        Findings named ``faithfulness/<method>_<metric>_vs_random_in_<role>``, and
        ``faithfulness/<method>_<metric>_base_vs_tuned`` for the gain over random.
    """
    main = [one for one in ratings if one.is_main and one.finding is not None]
    first = next(iter(words))
    findings = [
        replace(one.finding, headline=one.method == first and one.metric == "correlation")
        for one in main
        if one.finding is not None
    ]
    changes: list[tuple[tuple[str, bool, str], Finding]] = []
    by_role = {(one.role, one.method, one.metric): one.gain for one in main}
    for method, metric in dict.fromkeys((one.method, one.metric) for one in main):
        gains = [by_role.get((role, method, metric)) for role in ROLES]
        if gains[0] is None or gains[1] is None:
            continue
        both = pd.concat(gains, axis=1, keys=ROLES).dropna()
        base, tuned = both["base"].to_numpy(float), both["tuned"].to_numpy(float)
        what = METRICS[metric]
        finding = mean_of(tuned - base, seed).finding(
            name=f"faithfulness/{method}_{metric}_base_vs_tuned",
            view="faithfulness",
            measure=f"gain of {words[method]} over random importance in the {what}",
            headline=False,
            data=main[0].finding.data if main[0].finding else "",
            role="both",
            question=f"Is {words[method]} as faithful in the tuned model as in the base, by the {what}?",
            null="mean difference of the gain over random, tuned minus base on the same prompts, is 0",
            test="paired t, two-sided",
            groups={"base": base, "tuned": tuned},
            n=len(both),
            effect_name="difference of gains",
        )
        changes.append(((metric, False, "both"), finding))
    return [*findings, *_over_methods(changes)]


def sanity_findings(table: pd.DataFrame, words: Mapping[str, str], data: str, seed: int = 0) -> list[Finding]:
    """Test whether an attribution still resembles itself once the weights of all layers are random.

    Args:
        table: ``role, dataset, id, method, at, value``: mean rank correlation of each response's attribution with
            the one by the model whose layers are all random.
        words: Label of each method -> what a finding calls it.
        data: Names of the data sets.
        seed: Random seed for the bootstrap intervals.

    Returns:
        Findings named ``faithfulness/<method>_random_layers_in_<role>``; one that stands tells of an attribution
        that does not depend on what the layers have learned.
    """
    found: list[tuple[tuple[str, bool, str], Finding]] = []
    for (name, label), rows in table.groupby(["role", "method"], sort=False):
        values, role, method = rows["value"].to_numpy(float), str(name), str(label)
        finding = mean_of(values, seed).finding(
            name=f"faithfulness/{method}_random_layers_in_{role}",
            view="faithfulness",
            measure=f"rank correlation of {words[method]} before and after the layers are randomised",
            headline=False,
            data=data,
            role=role,
            question=f"Does {words[method]} resemble itself when the weights of all layers are random?",
            null="mean rank correlation with the attribution by random layers is 0",
            test="one-sample t, two-sided",
            groups={role: values},
            n=len(values),
            effect_name="mean Spearman correlation",
        )
        found.append((("layers", False, role), finding))
    return _over_methods(found)


def _compared(method: str, by: str, words: Mapping[str, str]) -> str:
    if method == ALL_REMOVALS:
        return "the two removals" if by == "zero_vs_mean" else f"the removals {by.replace('_', ' ')}"
    return f"{words[method]} and {Ablation(by).words}"


def _over_methods(found: list[tuple[tuple[str, bool, str], Finding]]) -> list[Finding]:
    """Correct the findings that share a question, which comes before each; they keep their order."""
    order = sorted(range(len(found)), key=lambda i: found[i][0])
    corrected: dict[int, Finding] = {}
    for _, same in groupby(order, key=lambda i: found[i][0]):
        members = list(same)
        findings = [found[i][1] for i in members]
        corrected.update(zip(members, holm(findings, "methods") if len(findings) > 1 else findings, strict=True))
    return [corrected[i] for i in range(len(found))]
