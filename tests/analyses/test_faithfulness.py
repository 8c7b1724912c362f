"""Importance and exact removal rank prompt tokens: the correlation, its means over prompts, and the sample."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers.in_process import analyze
from scipy import stats

from shiftlens.analyses.faithfulness.compute import rank_correlation
from shiftlens.analyses.faithfulness.findings import faithfulness_findings
from shiftlens.callbacks import Faithfulness
from shiftlens.errors import ConfigError


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    estimate, exact = rng.normal(size=(7, 5)), rng.normal(size=(7, 5))
    exact[:, 1] = estimate[:, 1] ** 3
    exact[:4, 2] = 0.5  # ties
    exact[:, 3] = 1.0
    found = rank_correlation(estimate, exact)
    for column in (0, 1, 2, 4):
        assert found[column] == pytest.approx(stats.spearmanr(estimate[:, column], exact[:, column]).statistic)
    assert found[1] == pytest.approx(1.0)
    assert np.isnan(found[3])
    assert np.isnan(rank_correlation(estimate[:1], exact[:1])).all()


def test_prompts_not_tokens_are_the_unit():
    """A long response must not count more than a short one."""
    spearman = {
        "base": {"a": [0.2] * 50, "b": [0.6, 0.8], "c": [0.1]},
        "tuned": {"a": [0.5], "b": [0.4], "c": [0.9]},
    }
    table = pd.DataFrame(
        [
            {"role": role, "id": name, "dataset": "d", "method": "gradient", "by": "zero", "spearman": value}
            for role, prompts in spearman.items()
            for name, values in prompts.items()
            for value in values
        ]
    )
    found = {f.name: f for f in faithfulness_findings(table, {"gradient": "gradient x embedding"})}
    assert found["faithfulness/zero_in_base"].effect == pytest.approx((0.2 + 0.7 + 0.1) / 3)
    change = found["faithfulness/zero_base_vs_tuned"]
    assert change.effect == pytest.approx(((0.5 - 0.2) + (0.4 - 0.7) + (0.9 - 0.1)) / 3)
    assert change.p == pytest.approx(stats.ttest_rel([0.5, 0.4, 0.9], [0.2, 0.7, 0.1]).pvalue)
    assert change.ci[0] < change.effect < change.ci[1]
    assert change.n == 3


def test_all_faults_of_the_settings_at_once():
    with pytest.raises(ConfigError) as error:
        Faithfulness(n=0, by=["noise"], methods=["gradient", "magic"], shares=[0.5, 0.1], tokens=-1, sanity=-1)
    for fault in (
        "faithfulness.n=0", "by=['noise']", "methods: saliency.method=magic", "shares=[0.5, 0.1]", "tokens=-1",
        "sanity=-1",
    ):  # fmt: skip
        assert fault in str(error.value)


def test_a_sample_of_the_prompts_is_ablated_once(pair, tmp_path):
    words = ["callbacks=faithfulness", "callbacks.faithfulness.n=2", "saliency.include_response=true"]
    words += ["saliency.method=gradient", "callbacks.faithfulness.methods=[gradient,ablation]"]
    analysis, told = analyze(tmp_path, pair, *words)
    table = analysis.tables["faithfulness"]
    compared = [(method, by) for method in ("gradient", "random") for by in ("zero", "mean")]
    compared += [("ablation", "mean"), ("removals", "zero_vs_mean")]  # not removal with itself
    assert table.groupby(["role", "method", "by"])["id"].nunique().to_dict() == dict.fromkeys(
        [(role, *pair) for role in ("base", "tuned") for pair in compared], 2
    )
    assert set(table.loc[table["role"] == "base", "id"]) == set(table.loc[table["role"] == "tuned", "id"])
    lengths = analysis.tables["samples"].set_index(["role", "id"])["n_response"]
    rows = table.groupby(["role", "id", "method", "by"]).size()
    assert all(count == lengths[role, name] for (role, name, *_), count in rows.items())
    assert told.count(": 2 samples to explain, 0 in the ledger") == 2  # the sets of a prompt are one sample
    again, told = analyze(tmp_path, pair, *words)
    assert "to explain" not in told
    pd.testing.assert_frame_equal(again.tables["faithfulness"], table)


def test_the_estimate_is_gradient_x_embedding_whatever_the_method_of_the_run(pair, tmp_path):
    """What the findings say is compared; ablation against itself would agree in full."""
    words = ["callbacks=faithfulness", "callbacks.faithfulness.n=2"]
    words += ["callbacks.faithfulness.methods=[gradient,ablation]"]
    usual, _ = analyze(tmp_path, pair, *words)
    other, _ = analyze(tmp_path, pair, *words, "saliency.method=ablation")
    pd.testing.assert_frame_equal(other.tables["faithfulness"], usual.tables["faithfulness"])
