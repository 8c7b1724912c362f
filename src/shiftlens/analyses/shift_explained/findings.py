"""Tests which regions of the prompt carry more than their share of the tokens, and which of two carries more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from shiftlens.analyses.shift_explained.compute import REGIONS
from shiftlens.results.finding import Finding
from shiftlens.results.method_agreement import Named, agreement
from shiftlens.stats.multiple_testing import holm
from shiftlens.stats.one_sample import mean_of

_TOKENS = {
    "instruction": "instruction tokens",
    "context": "context tokens",
    "other": "tokens outside instruction and context",
}
_PAIRS = (("instruction", "context"), ("instruction", "other"))


@dataclass(frozen=True)
class Wording:
    """How the findings of an analysis are told.

    Args:
        view: Name of the analysis, the beginning of its findings' names.
        whole: What the regions have shares of, e.g. ``the shift``.
        role: Model whose numbers are tested: ``base``, ``tuned`` or ``both``.
    """

    view: str
    whole: str
    role: str


def region_findings(
    table: pd.DataFrame, methods: Sequence[Named], wording: Wording, notes: Sequence[str] = (), seed: int = 0
) -> list[Finding]:
    """Test every region against chance and pairs of regions against each other, over prompts, under each method.

    Chance is the region's share of the prompt's tokens. A prompt counts where it has other tokens too. Holm's
    correction is over all these tests of one data set and method.

    Args:
        table: Columns ``method, id, dataset, region, token_share, share``.
        methods: Methods of the table; the first is the headline.
        wording: How the findings are told.
        notes: What was left out.
        seed: Random seed for the bootstrap intervals.

    Returns:
        Findings named ``VIEW/REGION_vs_chance`` and ``VIEW/REGION_vs_REGION``, judged; those of further methods
        have the method's label behind their name. Of each data set the first one is the headline.
    """
    found = {
        method: [
            finding
            for dataset, rows in table[table["method"] == method.label].groupby("dataset", sort=False)
            for finding in holm(_tests(rows, str(dataset), method, wording, notes, seed), "regions")
        ]
        for method in methods
    }
    return [finding for findings in agreement(found, specific=True).values() for finding in findings]


def _tests(
    rows: pd.DataFrame, dataset: str, method: Named, wording: Wording, notes: Sequence[str], seed: int
) -> list[Finding]:
    known = rows[(rows["token_share"] < 1) & rows["share"].notna()]
    share, chance = (known.pivot(index="id", columns="region", values=name) for name in ("share", "token_share"))
    present = [region for region in REGIONS if region in set(rows["region"])]
    share, chance = share.reindex(columns=present), chance.reindex(columns=present)
    findings = []
    for region in present:
        both = share[region].notna()
        found, expected = share.loc[both, region].to_numpy(float), chance.loc[both, region].to_numpy(float)
        findings.append(
            mean_of(found - expected, seed).finding(
                name=f"{wording.view}/{region}_vs_chance",
                view=wording.view,
                measure=f"share of {_TOKENS[region]} by {method.words}",
                unit="%",
                data=dataset,
                role=wording.role,
                question=f"Do {_TOKENS[region]} carry more or less of {wording.whole} than their number?",
                null=f"mean share of {wording.whole} minus share of the prompt's tokens, within a prompt, is 0",
                test="one-sample t, two-sided",
                n=len(found),
                groups={wording.whole: found, "the prompt": expected},
                headline=region == present[0],
                effect_name="difference of shares",
                notes=notes,
            )
        )
    beyond = share - chance
    for first, second in _PAIRS:
        if {first, second} <= set(present):
            one, two = beyond[[first, second]].dropna().to_numpy(float).T
            findings.append(
                mean_of(one - two, seed).finding(
                    name=f"{wording.view}/{first}_vs_{second}",
                    view=wording.view,
                    measure=f"share of {wording.whole} beyond the share of the tokens by {method.words}",
                    unit="%",
                    data=dataset,
                    role=wording.role,
                    question=f"Do {_TOKENS[first]} carry more of {wording.whole} than {_TOKENS[second]}?",
                    null=f"mean share beyond chance, {first} minus {second} in one prompt, is 0",
                    test="paired t, two-sided",
                    n=len(one),
                    groups={_TOKENS[first]: one, _TOKENS[second]: two},
                    effect_name="difference of shares",
                    headline=False,
                    notes=notes,
                )
            )
    return findings
