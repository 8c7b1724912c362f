"""Which method to believe: planted methods, random importance as zero line, and the rule on its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from helpers.in_process import analyze
from scipy import stats
from statsmodels.stats.multitest import multipletests

from shiftlens.analyses.faithfulness.compute import ALL_REMOVALS
from shiftlens.analyses.faithfulness.rating import believable, methods_table, rate
from shiftlens.attribution.methods import METHODS, Method
from shiftlens.attribution.methods.ablation import Ablation
from shiftlens.report.page import render_report
from shiftlens.results.finding import Finding
from shiftlens.stats.multiple_testing import holm

WORDS = ("fix", "me", "the", "words", "in", "order", "grammar", "goes", "please", "him", "French", "translate")
PROMPTS = 24


@dataclass(frozen=True)
class Planted(Method):
    """Exact removal under another name, with the sign turned round on demand."""

    name = "planted"
    words = "the planted method"
    form = "loss"
    sign = 1.0

    def explain(self, model, input_ids, sources, response, engine):
        found = Ablation("zero").explain(model, input_ids, sources, response, engine)
        return replace(found, values=self.sign * found.values, mode="planted")


@dataclass(frozen=True)
class Reversed(Planted):
    name = "reversed"
    words = "the reversed method"
    sign = -1.0


@pytest.fixture(scope="module")
def ran(pair, tmp_path_factory):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(WORDS)[:6]) for _ in range(PROMPTS)]
    records = [{"id": str(i), "text": text, "instruction": [[0, 4]]} for i, text in enumerate(texts)]
    own = {"n": PROMPTS, "sanity": 0, "tokens": 0, "by": "[zero,mean]", "shares": "[0.1,0.4]"}
    words = ["callbacks=faithfulness", *(f"callbacks.faithfulness.{key}={value}" for key, value in own.items())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "planted", Planted)
        patch.setitem(METHODS, "reversed", Reversed)
        chosen = "callbacks.faithfulness.methods=[reversed,planted,ablation]"
        return analyze(tmp_path_factory.mktemp("planted"), pair, *words, chosen, records=records)[0]


def test_the_planted_method_is_the_one_to_believe(ran):
    table = ran.tables["faithfulness_methods"]
    assert believable(table, ["reversed", "planted"]) == "planted"
    assert believable(table, ["reversed"]) is None
    page = render_report(ran)
    assert "<b>the planted method</b> is the one to believe" in page


def test_random_importance_is_the_zero_line(ran):
    """A method that removal itself made beats it on every metric, the reversed one loses."""
    table = ran.tables["faithfulness_methods"]
    assert table.loc[table["method"] == "random", "gain"].isna().all()
    main = table[(table["measure"] != "p") & (table["at"].isin(["", "mean", ALL_REMOVALS]))]
    main = main[(main["scope"] == "response") | (main["metric"] == "correlation")]
    gains = main.set_index(["role", "method", "metric", "at"])["gain"]
    for metric, at in (
        ("correlation", ALL_REMOVALS),
        ("deletion", ""),
        ("insertion", ""),
        ("comprehensiveness", "mean"),
    ):
        for role in ("base", "tuned"):
            assert gains[role, "planted", metric, at] > 0 > gains[role, "reversed", metric, at]


def test_the_table_is_paired_and_corrected_over_the_methods(ran):
    """From the curves, by scipy and statsmodels."""
    points = ran.tables["faithfulness_curves"]
    points = points[(points["role"] == "base") & (points["position"] == -1) & (points["curve"] == "deletion")]
    curves = points.pivot(index=["id", "method"], columns="share", values="change")
    areas = pd.Series(np.trapezoid(curves, curves.columns), curves.index).unstack()
    table = ran.tables["faithfulness_methods"]
    found = table[(table["role"] == "base") & (table["metric"] == "deletion") & (table["scope"] == "response")]
    found = found[found["measure"] == "change"].set_index("method")
    names = ["reversed", "planted", "ablation"]
    tests = {name: stats.ttest_rel(areas["random"], areas[name]) for name in names}
    corrected = multipletests([tests[name].pvalue for name in names], method="holm")[1]
    for name, p in zip(names, corrected, strict=True):
        assert found.loc[name, "mean"] == pytest.approx(areas[name].mean())
        assert found.loc[name, "gain"] == pytest.approx((areas["random"] - areas[name]).mean())
        assert found.loc[name, "p"] == pytest.approx(tests[name].pvalue)
        assert found.loc[name, "p_corrected"] == pytest.approx(p)
        assert found.loc[name, "gain_low"] < found.loc[name, "gain"] < found.loc[name, "gain_high"]


def test_few_headlines_and_names_that_say_the_metric(ran):
    found = {f.name: f for f in ran.findings if f.view == "faithfulness"}
    headlines = {name for name, finding in found.items() if finding.headline}
    assert headlines == {f"faithfulness/reversed_correlation_vs_random_in_{role}" for role in ("base", "tuned")}
    assert found["faithfulness/planted_insertion_vs_random_in_tuned"].corrected_over == ("methods",)
    assert "faithfulness/planted_zero_in_base" in found
    assert "faithfulness/zero_vs_mean_base_vs_tuned" in found
    assert not any("ablation_mean" in name for name in found)  # that is zero_vs_mean


def made_up(gain, prompts=8, seed=0):
    """Scores of methods with a mean gain over random in each metric that the rule reads."""
    rng, rows = np.random.default_rng(seed), []
    metrics = [("correlation", ALL_REMOVALS, "token", "", 1), ("deletion", "", "response", "change", -1)]
    metrics.append(("insertion", "", "response", "change", 1))
    for role in ("base", "tuned"):
        for metric, at, scope, measure, sign in metrics:
            for method, gains in ({"random": {}} | gain).items():
                mean = sign * gains.get((role, metric), gains.get(metric, 0.0))
                for i, value in enumerate(mean + 0.1 * rng.normal(size=prompts)):
                    rows.append((role, "d", str(i), method, scope, metric, at, measure, value))
    names = ["role", "dataset", "id", "method", "scope", "metric", "at", "measure", "value"]
    return methods_table(rate(pd.DataFrame(rows, columns=names), {m: m for m in ["random", *gain]}))


GOOD = {"correlation": 0.4, "deletion": 0.5, "insertion": 0.5}


@pytest.mark.parametrize(
    ("better", "expected"),
    [
        ({"correlation": 0.6, "deletion": 0.5, "insertion": 0.5}, "better"),
        ({"correlation": 0.6, "deletion": 0.5, "insertion": 0.0}, "good"),
        ({"correlation": 0.6, "deletion": -0.5, "insertion": 0.5}, "good"),
        ({"correlation": 0.6, ("tuned", "correlation"): 0.0, "deletion": 0.5, "insertion": 0.5}, "good"),
        ({"correlation": 0.2, "deletion": 0.9, "insertion": 0.9}, "good"),
    ],
)
def test_the_rule(better, expected):
    table = made_up({"good": GOOD, "better": better})
    assert believable(table, ["better", "good"]) == expected
    assert believable(table, []) is None
    assert believable(table, ["unknown"]) is None


def test_nothing_is_believed_where_every_method_is_random():
    blank = dict.fromkeys(GOOD, 0.0)
    chosen = [believable(made_up({"a": blank, "b": blank}, seed=seed), ["a", "b"]) for seed in range(20)]
    assert chosen == [None] * 20


def test_holm_is_that_of_statsmodels():
    head = ("x/y", "x", "d", "both", "?", "0", "t", 9, {}, 0.5, "g", None)
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 30):
        values = rng.random(size) ** 3
        values[: size // 3] = values[0]  # ties
        found = [finding.p_corrected for finding in holm([Finding(*head, p) for p in values], "methods")]
        np.testing.assert_allclose(found, multipletests(values, method="holm")[1], rtol=1e-12)
    assert holm([], "methods") == []
