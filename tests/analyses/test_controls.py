"""Permutation tests, controls and verdicts: against enumeration, plain restatements and planted truths."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from helpers.reference import FOLDER, needs_reference
from scipy import stats

from shiftlens.analyses.density.compute import POOLED, examine
from shiftlens.analyses.density.controls import run_controls
from shiftlens.analyses.density.grid import all_settings, grid
from shiftlens.analyses.density.questions import followed_question, tuning_question
from shiftlens.analyses.density.t1_t2 import base_vs_tuned, followed_vs_unfollowed
from shiftlens.analyses.imported.published import published_table, read_published
from shiftlens.errors import SourceError
from shiftlens.results.finding import Control, Finding
from shiftlens.results.verdict import two_sided, verdict
from shiftlens.scores.densities import densities
from shiftlens.scores.scored import Scored
from shiftlens.scores.settings import Settings
from shiftlens.stats.permutation import label_test, paired_t, sign_test, standardised, welch_t

HEADLINE = Settings(10, 3, 4)
SMALL = all_settings(Ls=[10], ps=[2, 4])


# Permutation tests


def test_t_of_all_relabellings_at_once_is_scipy_s_of_each():
    rng = np.random.default_rng(0)
    values, labels = rng.normal(3, 2, (4, 20)), rng.permuted(np.tile(np.arange(20) < 7, (9, 1)), axis=1)
    t, p = welch_t(standardised(values), labels.astype(float))
    signs = rng.choice([-1.0, 1.0], (9, 20))
    t2, p2 = paired_t(values, signs)
    for i, j in itertools.product(range(4), range(9)):
        welch = stats.ttest_ind(
            values[i][labels[j]], values[i][~labels[j]], equal_var=False, alternative="greater"
        )
        assert (t[i, j], p[i, j]) == pytest.approx((welch.statistic, welch.pvalue))
        one = stats.ttest_1samp(values[i] * signs[j], 0, alternative="greater")
        assert (t2[i, j], p2[i, j]) == pytest.approx((one.statistic, one.pvalue))


def test_label_p_values_converge_to_those_of_all_relabellings():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 9)) + np.array([[0.9], [0.3], [0.0]]) * (np.arange(9) < 4)
    every = []
    for chosen in itertools.combinations(range(9), 4):
        is_in = np.isin(np.arange(9), chosen)
        every.append([stats.ttest_ind(v[is_in], v[~is_in], equal_var=False).statistic for v in values])
    every, seen = np.array(every), np.array(every[0])  # the first combination is the data as they are
    result = label_test(values, np.arange(9) < 4, permutations=20_000)
    np.testing.assert_allclose(result.statistic, seen)
    np.testing.assert_allclose(result.p, (every >= seen - 1e-9).mean(0), atol=0.012)
    np.testing.assert_allclose(result.p_corrected, (every.max(1)[:, None] >= seen - 1e-9).mean(0), atol=0.012)
    assert (result.p_corrected >= result.p).all()


def test_sign_p_values_converge_to_those_of_all_flips():
    rng = np.random.default_rng(2)
    values = rng.normal(0.4, 1, (3, 8))
    flips = np.array(list(itertools.product([1, -1], repeat=8)))
    every = np.array([stats.ttest_1samp(values * flip, 0, axis=1).statistic for flip in flips])
    result = sign_test(values, permutations=20_000)
    np.testing.assert_allclose(result.statistic, every[0])
    np.testing.assert_allclose(result.p, (every >= every[0] - 1e-9).mean(0), atol=0.012)
    np.testing.assert_allclose(result.p_corrected, (every.max(1)[:, None] >= every[0] - 1e-9).mean(0), atol=0.012)


def test_labels_stay_in_their_data_set():
    # Both data sets are without effect; one has higher scores and more followed responses.
    rng = np.random.default_rng(3)
    high_set = np.arange(80) < 40
    labels = np.where(high_set, np.arange(80) % 5 > 0, np.arange(80) % 5 == 0)
    values = (rng.normal(size=80) + 3 * high_set)[None]
    assert label_test(values, labels, permutations=999).p[0] < 0.01
    assert label_test(values, labels, high_set.astype(str), permutations=999).p[0] > 0.05


def test_settings_without_variance_take_no_part():
    rng = np.random.default_rng(4)
    varied, labels = rng.normal(size=(2, 30)), np.arange(30) < 12
    flat = np.concatenate([varied[:1], np.full((1, 30), 0.1), varied[1:], 0.3 + np.zeros((1, 30))])
    flat[3, 5] += 1e-16
    for test in (lambda v: label_test(v, labels, permutations=500), lambda v: sign_test(v, permutations=500)):
        with_flat, without = test(flat), test(varied)
        assert with_flat.testable.tolist() == [True, False, True, False]
        np.testing.assert_array_equal(with_flat.p_corrected, np.insert(without.p_corrected, [1, 2], 1.0))
        assert np.isfinite(with_flat.statistic).all()
    assert not label_test(varied, np.arange(30) < 1, permutations=10).testable.any()
    assert not sign_test(varied[:, :1], permutations=10).testable.any()
    assert not sign_test(varied[:, :0], permutations=10).testable.any()


@pytest.fixture(scope="module")
def correlated():
    """Scores of random responses under the 50 settings of the paper's grid: its own correlation."""
    rng = np.random.default_rng(5)
    mask = np.arange(8) < 4
    records = [Scored("d", str(i), "tuned", mask, ~mask, None, importance=rng.normal(size=(8, 12)))
               for i in range(200)]  # fmt: skip
    return standardised(grid(records, all_settings(Ls=[10])).scores)


def test_corrected_p_values_are_right_where_there_is_no_effect(correlated):
    rng, corrected, plain = np.random.default_rng(6), 0, 0
    few = correlated[:, :60]
    for i in range(500):
        result = label_test(few, rng.permutation(60) < 20, permutations=200, seed=i)
        corrected += result.p_corrected.min() <= 0.05
        plain += result.p.min() <= 0.05
    assert 0.03 <= corrected / 500 <= 0.07
    assert plain / 500 > 0.10  # what the correction is for


def test_corrected_p_values_are_right_where_signs_are_random(correlated):
    rng, differences = np.random.default_rng(7), correlated[:, :100] - correlated[:, 100:]
    hits = 0
    for i in range(500):
        signs = rng.choice([-1.0, 1.0], 100)
        hits += sign_test(differences * signs, permutations=200, seed=i).p_corrected.min() <= 0.05
    assert 0.03 <= hits / 500 <= 0.07


def test_a_planted_effect_is_found(correlated):
    rng, found, paired = np.random.default_rng(8), 0, 0
    for i in range(100):
        labels = rng.permutation(200) < 100
        found += label_test(correlated + 0.5 * labels, labels, permutations=300, seed=i).p_corrected.min() <= 0.05
        signs = rng.choice([-1.0, 1.0], 200)
        paired += sign_test(correlated * signs + 0.5, permutations=300, seed=i).p_corrected.min() <= 0.05
    assert found > 90
    assert paired > 90


# Controls


def planted(n=120, seed=0, gain=0.0, other_gain=0.0, length=lambda i, role: 40, other=6, data="d", anchor=False):
    """Records whose response tokens rest on the instruction, or the other tokens, more often when tuned or followed.

    ``gain`` and ``other_gain`` are the shares of response tokens that spread over those tokens. An anchor is a
    source outside the prompt that all response tokens rest on most, so that the largest density stays the same.
    """
    rng, records = np.random.default_rng(seed), []
    mask = np.arange(4 + other) < 4
    for i in range(n):
        followed = i % 2 == 0
        for role in ("base", "tuned"):
            M = length(i, role)
            importance = rng.exponential(size=(4 + other, M)) * np.where(rng.random(M) < 0.3, 1, 0.3)
            raised = role == "tuned" and followed
            for tokens, share in ((mask, gain), (~mask, other_gain)):
                columns = rng.random(M) < share * raised
                importance[np.ix_(tokens, columns)] += 4.0
            if anchor:
                importance = np.vstack([importance, np.full((1, M), 10.0)])
            records.append(Scored(data, str(i), role, mask, ~mask, followed if role == "tuned" else None,
                                  importance=importance))  # fmt: skip
    return records


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
        assert "not testable: needs at least 10" in found[name].note
    assert found["mean"].survives is not None


# Findings


def test_examined_findings_are_those_of_the_tests_and_strict_json():
    records = planted(40, gain=0.4) + planted(30, seed=1, gain=0.4, data="e")
    found = examine(records, HEADLINE, SMALL, permutations=200)
    assert len(found.findings) == 3 * 3
    assert len(found.sensitivity) == 9 * len(SMALL)
    table = found.grid.samples(HEADLINE)
    for finding in found.findings:
        json.dumps(finding.to_dict(), allow_nan=False)
        if finding.data == POOLED:
            continue
        part = table[table["dataset"] == finding.data]
        want = base_vs_tuned(part) if "base" in finding.groups else followed_vs_unfollowed(part, finding.role)
        assert (finding.p, finding.effect, finding.n, finding.ci) == (want.p, want.effect, want.n, want.ci)
    pooled = {f.name: f for f in found.findings if f.data == POOLED}
    assert pooled["density/base_vs_tuned"].n == 70
    unjudged = pooled["density/followed_vs_unfollowed_in_base"]
    assert (unjudged.verdict, unjudged.p_corrected, unjudged.controls) == ("not testable", None, ())


def test_corrections_are_max_t_then_holm_over_data_sets():
    records = planted(24, gain=0.08) + planted(24, seed=1, gain=0.1, data="e")
    found = examine(records, HEADLINE, SMALL, permutations=400)
    here = found.sensitivity.query("name == 'density/base_vs_tuned' and L == 10 and b == 3 and p == 4")
    max_t = dict(zip(here["data"], here["p_corrected"], strict=True))
    low, high = sorted([max_t["d"], max_t["e"]])
    want = {low: min(1, 2 * low), high: min(1, max(2 * low, high))}
    got = {f.data: f.p_corrected for f in found.findings if f.name == "density/base_vs_tuned"}
    assert got == pytest.approx({"d": want[max_t["d"]], "e": want[max_t["e"]], POOLED: max_t[POOLED]})


def test_the_headline_joins_the_grid_and_the_same_seed_gives_the_same_numbers():
    records = planted(20, gain=0.4)
    first, again = (examine(records, Settings(16, 3, 5), SMALL, permutations=50, seed=3) for _ in range(2))
    assert len(first.grid.settings) == len(SMALL) + 1
    assert first.findings == again.findings


def test_one_data_set_is_not_pooled_and_few_samples_are_not_testable():
    found = examine(planted(1), HEADLINE, SMALL, permutations=20)
    assert [f.verdict for f in found.findings] == ["not testable"] * 3
    assert found.sensitivity[["statistic", "p_permutation", "p_corrected"]].isna().all(axis=None)


def judged(p=0.001, corrected=0.01, effect=0.5, **survives):
    controls = tuple(Control(name.replace("_", " "), "?", 1.0, 0.5, 0.1, s) for name, s in survives.items())
    return verdict(Finding("x/y", "x", "d", "both", "?", "0", "t", 9, {}, effect, "g", None, p,
                           p_corrected=corrected, controls=controls))  # fmt: skip


def test_verdicts():
    assert judged(p=None) == "not testable"
    assert judged(corrected=0.051, random_mask=True) == "not supported"
    assert judged(p=0.051, corrected=None, random_mask=True) == "not supported"
    assert judged(effect=-0.1, random_mask=True) == "not supported"
    assert judged(random_mask=True, mean=True, share=None) == "supported"
    assert judged(random_mask=True, mean=False) == "supported but not specific"
    assert judged(random_mask=False) == "supported but not specific"
    assert judged(random_mask=None, mean=True) == "supported but not specific"
    assert judged() == "supported but not specific"


def test_verdicts_without_rivals():
    blank = Finding("x/y", "x", "d", "both", "?", "0", "t", 9, {}, -0.5, "g", None, 0.04)
    words = [two_sided(replace(blank, p_corrected=p)).verdict for p in (None, 0.05, 0.051)]
    assert words == ["supported", "supported", "not supported"]
    assert two_sided(replace(blank, p=0.06)).verdict == "not supported"
    assert two_sided(replace(blank, p=None)).verdict == "not testable"


# Published scores


@pytest.fixture(scope="module")
def published_examination():
    return examine(read_published(FOLDER), Settings(10, 7, 4), all_settings(Ls=[10]), permutations=2000)


def by_data(examination, name):
    return {f.data: f for f in examination.findings if f.name == name}


@needs_reference
def test_published_effects_stand_the_correction_and_the_search_is_not_free(published_examination):
    t1 = by_data(published_examination, "density/followed_vs_unfollowed")
    t2 = by_data(published_examination, "density/base_vs_tuned")
    for data in ("self_instruct", "lima"):
        assert t1[data].p_others["max-T permutation over 50 settings"] <= 0.005
        assert t2[data].p_corrected <= 0.005
        share = int(t1[data].note.split("p < 0.05 in ")[1].split("%")[0])
        assert 13 <= share <= 22  # 15-20 % in the review, give or take the draw
    assert (f"{t1['self_instruct'].p:.2e}", f"{t1['lima'].p:.2e}") == ("4.57e-05", "2.59e-05")
    assert (f"{t2['self_instruct'].p:.1e}", f"{t2['lima'].p:.1e}") == ("3.2e-06", "2.9e-21")


@needs_reference
def test_published_controls(published_examination):
    t1 = by_data(published_examination, "density/followed_vs_unfollowed")
    controls = {data: {c.name: c for c in t1[data].controls} for data in ("self_instruct", "lima")}
    for data, median, observed in (("self_instruct", 4.5, 4.6), ("lima", 2.7, 4.0)):
        row = controls[data]["random mask"]
        assert row.statistic == pytest.approx(median, abs=0.15)
        assert f"instruction's t = {observed}" in row.note
        assert controls[data]["no division by max"].p == pytest.approx(0.12, abs=0.02)
        assert not controls[data]["no division by max"].survives
    t2 = by_data(published_examination, "density/base_vs_tuned")["self_instruct"]
    context = next(c for c in t2.controls if c.name == "context tokens")
    assert context.statistic < 0  # the context gained, the instruction did not
    assert not context.survives


@needs_reference
def test_the_published_table_has_the_published_figures(published_examination):
    text = published_table(published_examination.findings)
    for figure in ("| 194 / 44 | 0.9739 ± 0.4377 | 1.2911 ± 0.5216 |", "| 249 / 50 | 1.0937 ± 0.4566 | 1.4045 ± 0.4896 |",
                   "| 252 | 1.0043 ± 0.4965 | 1.1939 ± 0.5358 |", "| 300 | 1.0666 ± 0.4468 | 1.3503 ± 0.4986 |",
                   "4.57e-05", "2.59e-05", "2.28e-05 | 3.2e-06", "3.88e-13 | 2.9e-21"):  # fmt: skip
        assert figure in text
    tables = [block.splitlines() for block in text.split("\n\n")[:2]]
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1


def test_a_folder_without_the_scores_says_what_is_missing(tmp_path):
    with pytest.raises(SourceError, match=r"no llama_7b.parquet and no vicuna_7b.parquet"):
        read_published(tmp_path)
