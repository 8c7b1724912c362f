"""Tests and effect sizes against plain restatements, and what happens where nothing can be tested."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from shiftlens.analyses.density.t1_t2 import base_vs_tuned, followed_vs_unfollowed
from shiftlens.results.section import Section
from shiftlens.scores.following import followed_or_rated
from shiftlens.stats.contrast import Question
from shiftlens.stats.one_sample import mean_of
from shiftlens.stats.regression import adjusted
from shiftlens.stats.two_groups import hedges_g, independent, paired

pytestmark = pytest.mark.quick


def test_welch_t_by_hand():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, 40), rng.normal(0, 2, 25)
    result = independent(a, b)
    va, vb = a.var(ddof=1) / 40, b.var(ddof=1) / 25
    assert result.statistic == pytest.approx((a.mean() - b.mean()) / math.sqrt(va + vb))
    # The p-value against the sampling distribution itself, by simulation under the null.
    df = (va + vb) ** 2 / (va**2 / 39 + vb**2 / 24)
    t = rng.standard_t(df, 400_000)
    assert result.p == pytest.approx((t > result.statistic).mean(), abs=0.003)


def test_paired_t_by_hand_and_against_sign_flips():
    rng = np.random.default_rng(1)
    base = rng.normal(1, 0.5, 30)
    tuned = base + rng.normal(0.1, 0.3, 30)
    result, d = paired(tuned, base), tuned - base
    assert result.statistic == pytest.approx(d.mean() / (d.std(ddof=1) / math.sqrt(30)))
    flips = (rng.choice([-1, 1], (200_000, 30)) * d).mean(1)
    assert result.p == pytest.approx((flips >= d.mean()).mean(), abs=0.01)
    assert result.p_others["paired t, two-sided"] == pytest.approx(2 * min(result.p, 1 - result.p))


def test_hedges_g_by_hand():
    a, b = np.array([1.0, 2, 4, 5]), np.array([0.0, 1, 1])
    pooled = math.sqrt((3 * a.var(ddof=1) + 2 * b.var(ddof=1)) / 5)
    assert hedges_g(a, b) == pytest.approx((3 - 2 / 3) / pooled * (1 - 3 / 19))


def test_the_interval_covers_the_true_effect_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(2), 0
    for i in range(60):
        result = independent(rng.normal(0.5, 1, 40), rng.normal(0, 1, 40), seed=i)
        hits += result.ci[0] <= 0.5 <= result.ci[1]
    assert 51 <= hits <= 60  # 95 % of 60 is 57; fewer than 51 has probability 0.001


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1, 2, 3]), ([2, 2], [2, 2]), ([1, 1, 1], [3, 3, 3])])
def test_what_cannot_be_tested_says_so(a, b):
    result = independent(np.array(a, float), np.array(b, float))
    assert (result.p, result.effect, result.ci) == (None, None, None)
    assert result.why_not


def test_resamples_of_one_number_have_no_part_in_the_interval():
    a, b = np.array([0.1, 0.3, 0.3]), np.array([0.7, 0.2, 0.7])
    assert np.full(3, 0.1).std() > 0  # a mean of equal numbers is not always that number
    exact = []
    for drawn in itertools.product(range(3), repeat=3):
        x, y = ([Fraction(str(values[i])) for i in drawn] for values in (a, b))
        within = statistics.variance(x) + statistics.variance(y)
        if within > 0:
            g = (statistics.mean(x) - statistics.mean(y)) / Fraction(math.sqrt(within / 2))
            exact.append(float(g) * (1 - 3 / 15))
    # Of at most 27 equally likely values the extremes are the percentiles.
    assert paired(a, b).ci == pytest.approx((min(exact), max(exact)))
    assert max(map(abs, exact)) < 10


@pytest.mark.filterwarnings("error")
def test_small_samples_give_numbers_or_a_reason_and_no_warnings():
    rng = np.random.default_rng(4)
    kinds = [
        lambda n: rng.normal(size=n), lambda n: rng.integers(0, 2, n).astype(float), lambda n: np.full(n, 0.1),
        lambda n: 0.1 + 0.2 * (rng.random(n) < 0.3), lambda n: 5 + 1e-12 * rng.normal(size=n),
    ]  # fmt: skip
    reasons = set()
    for n, first, second in itertools.product(range(8), kinds, kinds):
        a, b, lengths = first(n), second(n), rng.integers(1, 4, (2 * n, 3)).astype(float)
        high, low, both = np.arange(n), n + np.arange(n), np.concatenate([a, b])
        for result in (
            independent(a, b, resamples=50), independent(a, second(n + 1), resamples=50),
            paired(a, b, resamples=50), paired(a, a + b, resamples=50), mean_of(a - b, resamples=50),
            adjusted(Question(True, high, low, ("d",) * 2 * n), both, lengths),
            adjusted(Question(False, high, low, ("d", "e") * n), both, lengths),
        ):  # fmt: skip
            numbers = [result.p, result.statistic, result.effect, *(result.ci or ()), *result.p_others.values()]
            known = [number for number in numbers if number is not None]
            assert bool(known) != bool(result.why_not)
            assert np.isfinite(known).all() and np.abs(known).max(initial=0) < 1e8
            reasons.add(result.why_not.split(" ")[0])
    assert reasons >= {"", "needs", "neither", "every", "a"}


def test_equal_pairs_cannot_be_tested():
    a = np.array([1.0, 2, 3])
    assert paired(a, a).why_not
    assert paired(a + 0.1, a).why_not == "every pair differs by the same amount"
    assert np.ptp(a / 3 * 3.3 - a * 1.1) > 0  # rounding
    assert paired(a / 3 * 3.3, a * 1.1).why_not == "every pair differs by the same amount"
    with pytest.raises(ValueError, match="one length"):
        paired(a, a[:2])


def samples(n=12, follow=lambda i: i % 3 == 0, length=lambda i: 9):
    rng = np.random.default_rng(3)
    rows = [
        {"role": role, "id": str(i), "dataset": "d", "instruction_score": float(rng.random()), "followed": follow(i),
         "n_response": length(i)}
        for role in ("base", "tuned")
        for i in range(n)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table["followed"] = table["followed"].astype("boolean")
    return table


def test_t1_leaves_out_short_and_unjudged_responses_and_says_so():
    table = samples(follow=lambda i: None if i == 1 else i % 3 == 0, length=lambda i: 4 if i == 0 else 5)
    finding = followed_vs_unfollowed(table)
    assert finding.name == "density/followed_vs_unfollowed"
    assert (finding.groups["followed"].n, finding.groups["unfollowed"].n) == (3, 7)
    assert "1 with a response under 5 tokens" in finding.note
    assert "1 not judged" in finding.note


def test_t2_pairs_by_prompt_whatever_the_order():
    table = samples()
    want = base_vs_tuned(table)
    shuffled = base_vs_tuned(table.sample(frac=1, random_state=0))
    assert shuffled.p == pytest.approx(want.p)
    assert base_vs_tuned(table.drop(index=0)).n == 11
    assert "1 prompts without" in base_vs_tuned(table.drop(index=0)).note


def test_findings_are_strict_json_even_if_not_testable():
    finding = followed_vs_unfollowed(samples(follow=lambda i: True))
    assert not finding.testable
    assert finding.why_not == "needs at least 2 samples in each group, has 12 and 0"
    assert finding.verdict == "" and Section([finding]).findings[0].verdict == "not testable"
    json.dumps(finding.to_dict(), allow_nan=False)


def test_a_check_goes_before_a_rating():
    verdicts = followed_or_rated(
        pd.Series([True, False, None, None, None, None], dtype="boolean"), pd.Series([1, 4, 2, 1, 0, None])
    )
    assert [None if pd.isna(v) else bool(v) for v in verdicts] == [True, False, True, False, None, None]
