"""Compares every method with random importance, metric by metric, and says which one describes removal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from shiftlens.analyses.faithfulness.compute import ALL_REMOVALS
from shiftlens.results.finding import ALPHA, Finding
from shiftlens.stats.multiple_testing import holm
from shiftlens.stats.one_sample import mean_of
from shiftlens.stats.result import Comparison, Values

RANDOM = "random"
"""Label of the method whose importance is random: the zero line."""
BETTER = {"correlation": 1, "deletion": -1, "insertion": 1, "comprehensiveness": 1, "sufficiency": -1}
"""Metric -> 1 if a faithful method has large values of it, -1 if small ones."""
METRICS = {
    "correlation": "rank correlation with exact removal",
    "deletion": "area under the deletion curve (change of the target)",
    "insertion": "area under the insertion curve (change of the target)",
    "comprehensiveness": "loss without the most important tokens",
    "sufficiency": "loss with the most important tokens alone",
}
"""Metric -> what a sentence calls it."""
_KEYS = ["role", "scope", "metric", "at", "measure"]


@dataclass(frozen=True)
class Rating:
    """One metric of one method under one model.

    Args:
        role: ``base`` or ``tuned``.
        scope: ``response`` or ``token``, see
            :func:`~shiftlens.analyses.faithfulness.removal_curves.curve_metrics`.
        metric: Name of the metric.
        at: Share, depth or replacement at which it was taken; ``""`` for areas.
        measure: ``change`` of the target or ``p``; ``""`` for correlations.
        method: Label of the method.
        n: Number of prompts.
        mean: Mean over the prompts with its interval.
        gain: Values of each prompt minus those of random importance, signed so that positive is more faithful.
        finding: Test of the mean gain; ``None`` for random importance and for metrics that have no better side.
    """

    role: str
    scope: str
    metric: str
    at: str
    measure: str
    method: str
    n: int
    mean: Comparison
    gain: pd.Series
    finding: Finding | None

    @property
    def is_main(self) -> bool:
        """Whether findings report it: means over removals or shares, of the target, for the whole response."""
        if self.metric == "correlation":
            return self.at == ALL_REMOVALS
        return (self.scope, self.measure) == ("response", "change") and self.at in ("", "mean")


def rate(scores: pd.DataFrame, words: Mapping[str, str], seed: int = 0) -> list[Rating]:
    """Rate every method by every metric; Holm's correction is over the methods.

    Args:
        scores: ``role, dataset, id, method, scope, metric, at, measure, value``; one row per response.
        words: Label of each method, :data:`RANDOM` among them -> what a finding calls it.
        seed: Random seed for the bootstrap intervals.
    """
    ratings: list[Rating] = []
    data = ", ".join(scores["dataset"].unique())
    for key, group in scores.groupby(_KEYS, sort=False):
        wide = group.pivot(index=["dataset", "id"], columns="method", values="value")
        role, scope, metric, at, measure = map(str, key)
        methods = [method for method in words if method in wide]
        blanks = [Rating(role, scope, metric, at, measure, m, 0, Comparison(), pd.Series(), None) for m in methods]
        rated = [_rate(blank, wide, words, data, seed) for blank in blanks]
        findings = [one.finding for one in rated if one.finding is not None]
        corrected = iter(holm(findings, "methods") if len(findings) > 1 else findings)
        ratings += [one if one.finding is None else replace(one, finding=next(corrected)) for one in rated]
    return ratings


def _rate(blank: Rating, wide: pd.DataFrame, words: Mapping[str, str], data: str, seed: int) -> Rating:
    method, metric, role = blank.method, blank.metric, blank.role
    values = wide[method].dropna()
    mean = mean_of(values.to_numpy(float), seed)
    if mean.effect is None and len(values):  # one prompt, or the same number for each
        mean = replace(mean, effect=float(values.mean()))
    rating = replace(blank, n=len(values), mean=mean)
    if method == RANDOM or metric not in BETTER or RANDOM not in wide:
        return rating
    both = wide[[method, RANDOM]].dropna()
    gain = BETTER[metric] * (both[method] - both[RANDOM])
    groups: dict[str, Values] = {words[name]: both[name].to_numpy(float) for name in (method, RANDOM)}
    finding = mean_of(gain.to_numpy(float), seed).finding(
        name=f"faithfulness/{method}_{metric}_vs_random_in_{role}",
        view="faithfulness",
        measure=METRICS[metric],
        headline=False,
        data=data,
        role=role,
        question=f"Is {words[method]} more faithful than random importance by the {METRICS[metric]}?",
        null=f"the mean {METRICS[metric]} is that of random importance on the same prompts",
        test="paired t, two-sided",
        groups=groups,
        n=len(both),
        effect_name="gain over random",
    )
    return replace(rating, gain=gain, finding=finding)


def methods_table(ratings: Sequence[Rating]) -> pd.DataFrame:
    """Build the table of methods and metrics.

    Returns:
        ``role, method, scope, metric, at, measure, n, mean, low, high, gain, gain_low, gain_high, p,
        p_corrected``: the mean with its 95 % interval over prompts, and the paired gain over random importance,
        positive where the method is more faithful; what could not be computed is NaN.
    """
    rows = []
    for one in ratings:
        low, high = one.mean.ci or (None, None)
        found = one.finding
        gain_low, gain_high = (found and found.ci) or (None, None)
        gain = (found.effect, gain_low, gain_high, found.p, found.p_decisive) if found else (None,) * 5
        about = (one.role, one.method, one.scope, one.metric, one.at, one.measure, one.n)
        rows.append((*about, one.mean.effect, low, high, *gain))
    columns = ["role", "method", "scope", "metric", "at", "measure", "n"]
    numbers = ["mean", "low", "high", "gain", "gain_low", "gain_high", "p", "p_corrected"]
    return pd.DataFrame(rows, columns=[*columns, *numbers]).astype(dict.fromkeys(numbers, float))


def believable(table: pd.DataFrame, candidates: Sequence[str]) -> str | None:
    """Choose the method to believe as a description of removal.

    A method qualifies if, in every model, the interval of its gain over random in rank correlation with the
    removals lies above 0, and its areas under the deletion and the insertion curve of the whole response beat
    random at the corrected level. Of those, the one with the highest mean rank correlation is chosen.

    Args:
        table: Result of :func:`methods_table`.
        candidates: Labels of the methods to choose from; exact removal is the yardstick and random the zero line,
            so neither is a candidate.

    Returns:
        Label of the method; ``None`` if no method qualifies.
    """
    correlation = table[(table["metric"] == "correlation") & (table["at"] == ALL_REMOVALS)]
    areas = table[table["metric"].isin(["deletion", "insertion"])]
    areas = areas[(areas["scope"] == "response") & (areas["measure"] == "change")]
    means: dict[str, float] = {}
    for method in candidates:
        with_removals, curves = (part[part["method"] == method] for part in (correlation, areas))
        beats = (curves["gain"] > 0) & (curves["p_corrected"] <= ALPHA)
        complete = len(with_removals) == table["role"].nunique() and len(curves) == 2 * len(with_removals) > 0
        if complete and bool((with_removals["gain_low"] > 0).all() and beats.all()):
            means[method] = float(with_removals["mean"].mean())
    return max(means, key=lambda method: means[method], default=None)
