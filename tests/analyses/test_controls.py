"""Controls: against plain restatements and planted truths."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers.planted import HEADLINE, planted
from scipy import stats

from shiftlens.analyses.density.controls import run_controls
from shiftlens.analyses.density.questions import followed_question, tuning_question
from shiftlens.scores.densities import densities
from shiftlens.scores.scored import Scored


def rows(records, question, setting=HEADLINE):
    return {control.name: control for control in run_controls(question, densities(records, setting))}


@pytest.mark.parametrize("ask", [followed_question, tuning_question])
def test_an_effect_on_instruction_words_alone_stands_against_other_words(ask):
    records = planted(gain=0.5)
    found = rows(records, ask(records))
    assert [found[name].survives for name in ("random mask", "non-instruction tokens", "context tokens")] == [
        True
    ] * 3
    assert found["mean"].survives
    assert found["share"].survives


@pytest.mark.parametrize("ask", [followed_question, tuning_question])
def test_an_effect_on_all_words_does_not(ask):
    records = planted(gain=0.5, other_gain=0.5, anchor=True)
    question = ask(records)
    sample = densities(records, HEADLINE)
    assert question.compare(sample.headline).p < 0.05
    found = rows(records, question)
    assert not found["random mask"].survives
    assert not found["non-instruction tokens"].survives
    assert found["random mask"].statistic > 2


def test_an_effect_of_length_is_gone_at_equal_length():
    # A spread of response tokens that grows with their number: tuned responses are four times as long.
    rng = np.random.default_rng(9)
    lengths = {(str(i), role): int(rng.integers(20, 60)) * (4 if role == "tuned" else 1) for i in range(80)
               for role in ("base", "tuned")}  # fmt: skip
    records = planted(80, length=lambda i, role: lengths[str(i), role])
    question, sample = tuning_question(records), densities(records, HEADLINE)
    assert question.compare(sample.headline_undivided).p < 1e-6
    first = np.array([min(lengths[r.id, "base"], lengths[r.id, "tuned"]) for r in records])
    cut = [replace(r, importance=r.importance[:, :k]) for r, k in zip(records, first, strict=True)]
    again = densities(cut, HEADLINE)
    undivided, found = question.compare(again.headline_undivided), rows(records, question)
    assert undivided.p > 0.01
    assert f"on equally many response tokens: t = {undivided.statistic:.2f}" in found["no division by max"].note
    found = found["equal response length"]
    assert found.statistic == pytest.approx(question.compare(again.headline).statistic)
    assert found.note == "the shorter of the two responses; 80 prompts"


def test_equal_length_of_groups_is_the_lower_quartile_and_drops_what_is_shorter():
    records = [r for r in planted(40, gain=0.3, length=lambda i, role: 10 + i) if r.role == "tuned"]
    found = rows(records, followed_question(records))["equal response length"]
    # Lengths 10..49: the lower quartile is 19, and 31 responses have as many.
    assert found.note == "19 tokens each; 15 + 16 responses"
    cut = [replace(r, importance=r.importance[:, :19]) for r in records if r.n_response >= 19]
    a, b = (densities([r for r in cut if r.followed is side], HEADLINE).headline for side in (True, False))
    assert found.statistic == pytest.approx(stats.ttest_ind(a, b, equal_var=False).statistic)


def test_random_masks_by_a_plain_loop():
    # Tokens of very different weight, the same in base and tuned: one draw must serve both.
    weight = np.random.default_rng(13).choice([0.1, 1.0], (60, 10, 1))
    records = [replace(r, importance=r.importance * weight[int(r.id)])
               for r in planted(60, gain=0.15, other_gain=0.1)]  # fmt: skip
    question, sample = tuning_question(records), densities(records, HEADLINE)
    rng, t = np.random.default_rng(10), []
    for _ in range(400):
        scores = {}
        for i in range(60):
            mask = rng.permutation(10) < 4
            for r, a in zip(records, sample.divided, strict=True):
                if r.id == str(i):
                    scores[r.role, i] = a[mask].sum() / math.log2(6)
        d = [scores["tuned", i] - scores["base", i] for i in range(60)]
        t.append(stats.ttest_1samp(d, 0).statistic)
    found = rows(records, question)["random mask"]
    assert found.statistic == pytest.approx(np.median(t), abs=0.3)
    observed = question.compare(sample.headline).statistic
    assert found.p == pytest.approx(np.mean(np.array(t) >= observed), abs=0.08)


def test_random_masks_have_the_size_of_the_instruction():
    # Where all tokens of a prompt weigh the same, any mask of its size scores the same.
    sizes = np.random.default_rng(12).integers(1, 9, 60)
    records = [Scored("d", str(i), "tuned", np.arange(12) < k, np.zeros(12, bool), i % 2 == 0,
                      importance=np.ones((12, 9))) for i, k in enumerate(sizes)]  # fmt: skip
    found = rows(records, followed_question(records))["random mask"]
    want = stats.ttest_ind(*(s[i::2] for i in (0, 1) for s in [sizes / np.log2(2 + sizes)]), equal_var=False)
    assert (found.statistic, found.survives) == (pytest.approx(want.statistic), False)
    assert f"instruction's t = {want.statistic:.2f}" in found.note


def hc3(y, X):
    inverse = np.linalg.inv(X.T @ X)
    beta = inverse @ X.T @ y
    e = (y - X @ beta) / (1 - np.einsum("ij,jk,ik->i", X, inverse, X))
    return beta[0], math.sqrt((inverse @ (X.T * e**2) @ X @ inverse)[0, 0])


def test_lengths_as_covariates_by_hand():
    rng = np.random.default_rng(11)
    # Prompts of several lengths, so that every covariate varies.
    records = [r for i in range(60) for r in planted(2, seed=i, gain=0.3, other=3 + i % 7,
               length=lambda i, role: int(rng.integers(10, 60)))]  # fmt: skip
    records = [replace(r, id=str(i // 2)) for i, r in enumerate(records)]
    sample = densities(records, HEADLINE)
    lengths = np.log1p([[len(r.instruction), r.n_response] for r in records])
    scores = sample.headline
    tuned, base = np.array([r.role == "tuned" for r in records]), np.array([r.role == "base" for r in records])
    followed = np.array([r.followed is True for r in records])

    beta, error = hc3(scores[tuned], np.column_stack([followed[tuned], np.ones(120), lengths[tuned]]))
    t1 = rows(records, followed_question(records))["lengths as covariates"]
    assert t1.statistic == pytest.approx(beta / error)
    assert t1.p == pytest.approx(stats.t.sf(beta / error, 120 - 4))
    pooled = math.sqrt((scores[tuned & followed].var(ddof=1) + scores[tuned & ~followed].var(ddof=1)) / 2)
    assert t1.effect == pytest.approx(beta / pooled)

    means = (lengths[tuned] + lengths[base]) / 2
    X = np.column_stack([np.ones(120), lengths[tuned][:, 1] - lengths[base][:, 1], means - means.mean(0)])
    beta, error = hc3(scores[tuned] - scores[base], X)
    t2 = rows(records, tuning_question(records))["lengths as covariates"]
    assert t2.statistic == pytest.approx(beta / error)


def test_a_control_without_material_decides_nothing():
    records = planted(30, gain=0.5, other=2)  # two other tokens are too few
    found = rows(records, tuning_question(records))
    for name in ("random mask", "non-instruction tokens", "context tokens"):
        assert (found[name].statistic, found[name].p, found[name].survives) == (None, None, None)
        assert found[name].why_not.startswith("needs at least 10")
    assert found["mean"].survives is not None
