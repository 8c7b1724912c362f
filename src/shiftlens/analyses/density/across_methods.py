"""Runs T1 and T2 under several methods of attribution, and asks whether the methods agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from shiftlens.analyses.density.compute import Examination, examine
from shiftlens.analyses.density.controls import ControlTest
from shiftlens.analyses.density.maps import SaliencyMap, ShiftMap
from shiftlens.results.method_agreement import Named, agreement
from shiftlens.scores.scored import Scored
from shiftlens.scores.settings import Settings


@dataclass(frozen=True)
class ByMethod:
    """Responses of base and tuned as one method of attribution explains them.

    Args:
        method: The method.
        records: Responses with raw importance or kept scores.
        samples: Table ``samples`` of these responses.
        tokens: Table ``tokens``: ``role, id, position, token, region, density``.
        profile: Table ``profile``: ``role, dataset, bin (0..9), mean, std, n``.
        draw: Prompt ids -> the maps of these prompts: base and tuned side by side, perhaps the shift between them.
    """

    method: Named
    records: Sequence[Scored]
    samples: pd.DataFrame
    tokens: pd.DataFrame
    profile: pd.DataFrame
    draw: Callable[[Sequence[str]], Sequence[SaliencyMap | ShiftMap]]


def examine_methods(
    records: Mapping[Named, Sequence[Scored]],
    setting: Settings,
    settings: Sequence[Settings] | None,
    permutations: int,
    seed: int = 0,
    controls: Sequence[ControlTest] = (),
    over_methods: bool = False,
) -> dict[Named, Examination]:
    """Run T1 and T2 under each method; the first method is the headline.

    Names and verdicts are those of :func:`~shiftlens.results.method_agreement.agreement`.

    Args:
        records: Method -> responses of base and tuned by it, in the same order for all methods.
        setting: L, b and p of the headline.
        settings: Grid to correct for; ``None`` for all.
        permutations: Number of relabellings of each permutation test.
        seed: Random seed.
        controls: Further controls.
        over_methods: Whether the headline's p-values are corrected for the choice among the methods too.

    Returns:
        Method -> its findings, judged, with the methods under which each stands, and its table of all settings.
    """
    found: dict[Named, Examination] = {}
    for method in reversed(list(records)):  # the headline last: it may be corrected over the grids of the others
        is_headline = len(found) == len(records) - 1
        others = tuple(each.grid for each in found.values()) if over_methods and is_headline else ()
        found[method] = examine(
            records[method], setting, settings, permutations, seed, controls, others=others,
            method=method,
        )  # fmt: skip
    judged = agreement({method: found[method].findings for method in records})
    return {
        method: replace(
            found[method],
            findings=findings,
            sensitivity=found[method].sensitivity.assign(method=method.label),
        )
        for method, findings in judged.items()
    }


def methods_table(found: Mapping[Named, Examination]) -> pd.DataFrame:
    """Build the table of every finding under every method.

    Args:
        found: Method -> its findings.

    Returns:
        ``method, words, name, data, n, effect, ci_low, ci_high, p, p_corrected, stands, verdict``.
    """
    rows = [
        {
            "method": method.label, "words": method.words, "name": finding.name, "data": finding.data,
            "question": finding.question, "n": finding.n, "effect": finding.effect,
            "ci_low": finding.ci[0] if finding.ci else None, "ci_high": finding.ci[1] if finding.ci else None,
            "p": finding.p, "p_corrected": finding.p_corrected, "stands": finding.stands,
            "verdict": finding.verdict,
        }
        for method, examination in found.items()
        for finding in examination.findings
    ]  # fmt: skip
    numbers = ["effect", "ci_low", "ci_high", "p", "p_corrected"]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, "float64"))
