"""Permutation tests: against enumeration, scipy and their own error rate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from shiftlens.analyses.density.grid import all_settings, grid
from shiftlens.scores.scored import Scored
from shiftlens.stats.permutation import label_test, paired_t, sign_test, standardised, welch_t


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
