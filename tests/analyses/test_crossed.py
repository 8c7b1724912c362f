"""Whose responses are explained: both models on both, or on one, against the Python interface; the split adds up."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import torch
from helpers.in_process import RECORDS, analyze
from helpers.naive import naive
from helpers.tiny import save_pair, tokenizer
from scipy import stats

import shiftlens as sl
from shiftlens.analyses.crossed.compute import split
from shiftlens.analyses.crossed.findings import crossed_findings
from shiftlens.errors import ConfigError, PromptError
from shiftlens.report.page import render_report

ROLES = ("base", "tuned")


@pytest.fixture(scope="module")
def ran(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("crossed")
    return folder, *analyze(folder, pair, "data.responses=both", "callbacks=evidence")


def cells(table):
    wide = table.pivot(index="id", columns=["role", "text"], values="instruction_score")
    return {(role, text): wide[role, text].to_numpy() for role, text in product(ROLES, ROLES)}


def test_every_cell_is_what_the_slow_engine_and_the_formulas_give(ran, pair):
    """Each model fed each response's ids, explained token by token."""
    table = ran[1].tables["crossed"].set_index(["role", "text", "id"])
    assert len(table) == 4 * len(RECORDS)
    models = {role: sl.load(str(folder)) for role, folder in zip(ROLES, pair, strict=True)}
    for record in RECORDS:
        own = {role: sl.attribute(models[role], record["text"], max_new_tokens=6) for role in ROLES}
        for role, text in product(ROLES, ROLES):
            fed = torch.from_numpy(own[text].input_ids).long()
            places, length = torch.from_numpy(own[text].prompt_index).long(), len(own[text].response_tokens)
            gradient, logp = naive(models[role].model, fed, places, length)
            a = sl.density(sl.score(gradient.numpy(), L=10, b=0), p=4)
            ends = np.cumsum([len(token) for token in own[text].prompt_tokens])
            mask = ends - [len(token) for token in own[text].prompt_tokens] < record["instruction"][0][1]
            row = table.loc[(role, text, record["id"])]
            assert row["instruction_score"] == pytest.approx(sl.instruction_score(a, mask), rel=1e-6)
            assert row["log_likelihood"] == pytest.approx(float(logp.mean()), rel=1e-4)
            assert row["n_response"] == length


def test_model_effect_and_text_effect_add_up_to_the_difference_of_t2(ran):
    analysis = ran[1]
    by_name = {finding.name: finding for finding in analysis.findings}
    t2 = by_name["density/base_vs_tuned"]
    difference = t2.groups["tuned"].mean - t2.groups["base"].mean
    found = by_name["density/model_effect"].effect + by_name["density/text_effect"].effect
    assert found == pytest.approx(difference, abs=1e-12)
    known = cells(analysis.tables["crossed"])
    parts = split(known)
    np.testing.assert_allclose(
        parts["model"] + parts["text"], known["tuned", "tuned"] - known["base", "base"], atol=1e-12
    )


def test_every_finding_has_a_verdict(ran):
    effects = [f for f in ran[1].findings if f.name.endswith(("_effect", "interaction"))]
    assert len(effects) == 3 and all(f.verdict for f in ran[1].findings)
    for finding in effects:
        known = "supported" if finding.p is not None and finding.p <= 0.05 else "not supported"
        assert finding.verdict == (known if finding.p is not None else "not testable")


def test_samples_stay_each_models_own_response(ran, pair, tmp_path):
    plain, _ = analyze(tmp_path, pair)
    crossed = ran[1].tables["samples"]
    assert (crossed["text"] == crossed["role"]).all()
    assert crossed.drop(columns="engine").equals(plain.tables["samples"].drop(columns="engine"))


def test_the_effects_are_paired_tests_over_prompts(ran):
    rng = np.random.default_rng(1)
    frame = ran[1].tables["crossed"]
    many = frame.loc[np.repeat(frame.index, 5)].assign(
        id=lambda t: t["id"] + "-" + t.groupby(["role", "text", "id"]).cumcount().astype(str),
        instruction_score=lambda t: rng.normal(1, 0.3, len(t)),
    )
    known = cells(many)
    found = {f.name: f for f in crossed_findings(many)}
    per_prompt = {
        "density/model_effect": (known["tuned", "base"] + known["tuned", "tuned"]) / 2
        - (known["base", "base"] + known["base", "tuned"]) / 2,
        "density/text_effect": (known["base", "tuned"] + known["tuned", "tuned"]) / 2
        - (known["base", "base"] + known["tuned", "base"]) / 2,
        "density/interaction": known["tuned", "tuned"] - known["base", "tuned"]
        - (known["tuned", "base"] - known["base", "base"]),
    }  # fmt: skip
    for name, values in per_prompt.items():
        assert found[name].effect == pytest.approx(values.mean())
        assert found[name].p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
        assert found[name].n == 15
        half = 1.96 * values.std(ddof=1) / np.sqrt(15)
        assert found[name].ci == pytest.approx((values.mean() - half, values.mean() + half), abs=0.35 * half)


def test_the_same_again_is_in_the_ledger(ran, pair):
    folder, first, told = ran
    assert "to explain" in told
    again, told = analyze(folder, pair, "data.responses=both", "callbacks=evidence")
    assert "to explain" not in told
    assert [f.to_dict() for f in again.findings] == [f.to_dict() for f in first.findings]


def test_the_report_shows_the_split(ran):
    page = render_report(ran[1])
    assert "Did the model change, or the text?" in page
    table = ran[1].tables["crossed"]
    mean = table[(table["role"] == "base") & (table["text"] == "tuned")]["instruction_score"].mean()
    assert f"{mean:.3f} ±" in page
    for name in ("token_shift", "faithfulness"):
        assert f'id="figure-{name}"' in page


@pytest.mark.parametrize("writer", ROLES)
def test_both_models_explain_the_responses_of_one(ran, pair, writer):
    """The rows are those of the 2 x 2, found in its ledger."""
    folder, both, _ = ran
    analysis, told = analyze(folder, pair, f"data.responses={writer}")
    assert "to explain" not in told
    assert (analysis.tables["samples"]["text"] == writer).all()
    known = both.tables["crossed"].set_index(["role", "text", "id"])["instruction_score"]
    for row in analysis.tables["samples"].itertuples():
        assert row.instruction_score == known[row.role, writer, row.id]
    assert analysis.tables["samples"].groupby("id")["response"].nunique().eq(1).all()
    assert analysis.tables["samples"].groupby("id")["finished"].nunique().eq(1).all()
    # A rating judges the tuned model's response, whoever reads it.
    rated = analysis.tables["samples"].loc[analysis.tables["samples"]["id"] == "three", "rating"]
    assert rated.notna().all() if writer == "tuned" else rated.isna().all()


def test_given_responses_only(pair, tmp_path):
    with pytest.raises(PromptError) as error:
        analyze(tmp_path, pair, "data.responses=given")
    assert all(f"prompt {record['id']}" in str(error.value) for record in RECORDS)
    records = [{**RECORDS[0], "response": "the words in order"}, *RECORDS[1:]]
    analysis, _ = analyze(tmp_path, pair, "data.responses=given", "data.on_error=skip", records=records)
    assert analysis.tables["samples"]["response"].tolist() == ["the words in order"] * 2
    assert (analysis.tables["samples"]["text"] == "given").all()
    # Elsewhere a given response stands only where each model has its own.
    own, _ = analyze(tmp_path, pair, records=records)
    assert own.tables["samples"]["text"].tolist() == ["given", "base", "base", "given", "tuned", "tuned"]
    both, _ = analyze(tmp_path, pair, "data.responses=both", records=records)
    assert "the words in order" not in set(both.tables["samples"]["response"])


def test_a_response_goes_over_as_text_where_ids_mean_something_else(tmp_path):
    base, tuned = save_pair(tmp_path)
    words = tokenizer()
    state = json.loads(words.backend_tokenizer.to_str())
    vocab = state["model"]["vocab"]
    a, b = "a", "e"  # two letters change places, so that their ids mean each other
    vocab[a], vocab[b] = vocab[b], vocab[a]
    other = type(words.backend_tokenizer).from_str(json.dumps(state))
    words._tokenizer = other
    words.save_pretrained(base)
    analysis, _ = analyze(tmp_path, (base, tuned), "data.responses=tuned", "data.max_new_tokens=40")
    assert analysis.tables["samples"].groupby("id")["response"].nunique().eq(1).all()
    assert any(a in text or b in text for text in analysis.tables["samples"]["response"])


def test_an_unknown_choice_is_an_error(pair, tmp_path):
    with pytest.raises(ConfigError, match="data.responses=all: expected one of own, base, tuned, given, both"):
        analyze(tmp_path, pair, "data.responses=all")
