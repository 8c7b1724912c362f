"""Tests which regions of the prompt carry more than their share of the tokens, and which of two carries more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from shiftlens.analyses.density.controls import Named, removal_control
from shiftlens.analyses.shift_explained.compute import REGIONS
from shiftlens.results.finding import ALPHA, Control, Finding
from shiftlens.results.verdict import judge
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
    return [_judged(i, method, found) for method in methods for i in range(len(found[method]))]


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


def _judged(i: int, method: Named, found: Mapping[Named, Sequence[Finding]]) -> Finding:
    """Add to a finding what the other methods say, and judge it; exact removal is a rival of the others."""
    finding, headline = found[method][i], method == next(iter(found))
    same = {
        each: next((f for f in findings if (f.name, f.data) == (finding.name, finding.data)), None)
        for each, findings in found.items()
    }
    rivals: tuple[Control, ...] = ()
    if finding.testable and not method.exact:
        exact = next((other for each, other in same.items() if each.exact), None)
        control = removal_control(exact)
        if exact is not None and exact.effect is not None and finding.effect is not None:
            # A test of two sides is confirmed on its own side.
            confirmed = (
                exact.p is not None and exact.p <= ALPHA and np.sign(exact.effect) == np.sign(finding.effect)
            )
            control = replace(control, survives=bool(confirmed))
        # Regions are set against each other, so that no further control has to ask for what is specific.
        rivals = (replace(control, specific=True),)
    finding = replace(
        finding,
        name=finding.name if headline else f"{finding.name}/{method.label}",
        method=method.label,
        methods=tuple(each.label for each in found),
        holds_under=tuple(each.label for each, other in same.items() if other is not None and other.stands),
        headline=headline and finding.headline,
    )
    return judge(finding, rivals)
