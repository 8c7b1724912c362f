"""Exact ablation against a fresh forward pass with the embedding set to zero, and its comparison with the estimate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.in_process import analyze
from helpers.tiny import FAMILIES, tiny, tokenizer
from scipy import stats

from shiftlens.analyses.faithfulness.compute import rank_correlation
from shiftlens.analyses.faithfulness.findings import faithfulness_findings
from shiftlens.attribution import AttributionModule, Engine, Request
from shiftlens.attribution.methods.ablation import Ablation, ablate
from shiftlens.callbacks import Faithfulness
from shiftlens.errors import ConfigError
from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM

IDS, SOURCES, RESPONSE = [1, 17, 4, 9, 33, 8, 21, 5], [1, 2, 4], 3


def response_logits(model, embeddings):
    """Logits of each response token, one pass each, from embeddings that are handed in."""
    start = len(IDS) - RESPONSE
    with torch.no_grad():
        return torch.stack(
            [
                model(inputs_embeds=embeddings[None, :end], use_cache=False).logits[0, -1]
                for end in range(start, len(IDS))
            ]
        )


def by_hand(model, replaced_by, value):
    """f - f' of every source and response token; `value` takes logits and gives f of each response token."""
    layer = model.get_input_embeddings()
    with torch.no_grad():
        embeddings = layer(torch.tensor(IDS))
        vector = torch.zeros(()) if replaced_by == "zero" else layer(torch.arange(layer.weight.shape[0])).mean(0)
    before = value(response_logits(model, embeddings))
    rows = []
    for place in SOURCES:
        changed = embeddings.clone()
        changed[place] = vector
        rows.append(before - value(response_logits(model, changed)))
    return torch.stack(rows), before


def probability(logits):
    return torch.softmax(logits, -1)[torch.arange(RESPONSE), torch.tensor(IDS[-RESPONSE:])]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("replaced_by", ["zero", "mean"])
def test_ablation_is_the_difference_of_probabilities(family, replaced_by):
    model = tiny(family)
    expected, before = by_hand(model, replaced_by, probability)
    found = ablate(model, IDS, SOURCES, RESPONSE, replaced_by, Engine(chunk=2))
    torch.testing.assert_close(found.values * before, expected, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(found.reading.log_probability.exp(), before, rtol=1e-9, atol=0)
    assert not model.get_input_embeddings()._forward_hooks


def test_the_logit_difference_is_taken_to_the_token_that_was_strongest_before():
    model = tiny("llama")
    embeddings = model.get_input_embeddings()(torch.tensor(IDS)).detach()
    wanted = torch.tensor(IDS[-RESPONSE:])
    others = response_logits(model, embeddings).scatter(1, wanted[:, None], -torch.inf).argmax(-1)
    place = torch.arange(RESPONSE)
    expected, _ = by_hand(model, "zero", lambda logits: logits[place, wanted] - logits[place, others])
    found = ablate(model, IDS, SOURCES, RESPONSE, "zero", Engine(target="logit_difference"))
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)


def test_texts_at_once_change_nothing():
    model = tiny("gpt2")
    one, all_of_them = (ablate(model, IDS, SOURCES, RESPONSE, "zero", Engine(chunk=c)) for c in (1, None))
    torch.testing.assert_close(one.values, all_of_them.values, rtol=1e-10, atol=1e-14)


def test_empty_responses_and_unknown_replacements():
    model = tiny("llama")
    assert ablate(model, IDS, SOURCES, 0, "zero", Engine()).values.shape == (3, 0)
    assert ablate(model, IDS, [], RESPONSE, "zero", Engine()).values.shape == (0, RESPONSE)
    with pytest.raises(ValueError, match="replaced_by=noise: expected one of zero, mean"):
        ablate(model, IDS, SOURCES, RESPONSE, "noise", Engine())


def test_a_token_that_rises_from_next_to_nothing_stays_finite():
    """p'/p beyond float32: the row must still be finite."""
    model = tiny("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(3000)
    row = _row(model, method=Ablation("zero"))
    assert np.isfinite(row.values).all()
    assert (row.values < -1e37).any()


def test_a_row_of_ablation_holds_raw_importance_as_other_rows_do():
    model = tiny("llama")
    row = _row(model, method=Ablation("zero"))
    expected, _ = by_hand(model, "zero", probability)
    np.testing.assert_allclose(row.importance(), expected.numpy(), rtol=1e-5, atol=1e-9)
    assert row.engine == "ablation"


def _row(model, **more):
    lm = LM(model, tokenizer(), "none", Identity("m", "f", "", "float64"))
    request = Request("k", tuple(IDS[:-RESPONSE]), tuple(SOURCES), tuple(IDS[-RESPONSE:]), 5, (), **more)
    return AttributionModule(lm).predict_step([request])[0]


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
            {"role": role, "id": name, "dataset": "d", "replaced_by": "zero", "spearman": value}
            for role, prompts in spearman.items()
            for name, values in prompts.items()
            for value in values
        ]
    )
    found = {f.name: f for f in faithfulness_findings(table)}
    assert found["faithfulness/zero_in_base"].effect == pytest.approx((0.2 + 0.7 + 0.1) / 3)
    change = found["faithfulness/zero_base_vs_tuned"]
    assert change.effect == pytest.approx(((0.5 - 0.2) + (0.4 - 0.7) + (0.9 - 0.1)) / 3)
    assert change.p == pytest.approx(stats.ttest_rel([0.5, 0.4, 0.9], [0.2, 0.7, 0.1]).pvalue)
    assert change.ci[0] < change.effect < change.ci[1]
    assert change.n == 3


def test_all_faults_of_the_settings_at_once():
    with pytest.raises(ConfigError) as error:
        Faithfulness(n=0, replaced_by=["noise"])
    assert "faithfulness.n=0" in str(error.value)
    assert "replaced_by=['noise']" in str(error.value)


def test_a_sample_of_the_prompts_is_ablated_once(pair, tmp_path):
    words = ["callbacks=faithfulness", "callbacks.faithfulness.n=2", "saliency.include_response=true"]
    analysis, told = analyze(tmp_path, pair, *words)
    table = analysis.tables["faithfulness"]
    assert table.groupby(["role", "replaced_by"])["id"].nunique().to_dict() == dict.fromkeys(
        [(role, by) for role in ("base", "tuned") for by in ("zero", "mean", "zero_vs_mean")], 2
    )
    assert set(table.loc[table["role"] == "base", "id"]) == set(table.loc[table["role"] == "tuned", "id"])
    lengths = analysis.tables["samples"].set_index(["role", "id"])["n_response"]
    rows = table.groupby(["role", "id", "replaced_by"]).size()
    assert all(count == lengths[role, name] for (role, name, _), count in rows.items())
    assert "ablation for 4" in told
    again, told = analyze(tmp_path, pair, *words)
    assert "to explain" not in told
    pd.testing.assert_frame_equal(again.tables["faithfulness"], table)


def test_the_estimate_is_gradient_x_embedding_whatever_the_method_of_the_run(pair, tmp_path):
    """What the findings say is compared; ablation against itself would agree in full."""
    words = ["callbacks=faithfulness", "callbacks.faithfulness.n=2"]
    usual, _ = analyze(tmp_path, pair, *words)
    other, _ = analyze(tmp_path, pair, *words, "saliency.method=ablation")
    pd.testing.assert_frame_equal(other.tables["faithfulness"], usual.tables["faithfulness"])
