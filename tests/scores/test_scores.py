"""Scores against a token-by-token restatement of the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from shiftlens.scores import (
    InstructionScore,
    density,
    instruction_score,
    position_profile,
    region_mean,
    score,
)

pytestmark = pytest.mark.quick


def plain_score(I, L, b):
    N, M = I.shape
    S = np.zeros((N, M), int)
    for m in range(M):
        top = max(max(I[n, m], 0) for n in range(N))
        for n in range(N):
            level = math.ceil(L * max(I[n, m], 0) / top) if top > 0 else 0
            S[n, m] = level if level > b else 0
    return S


def plain_density(S, p):
    a = []
    for row in S.tolist():
        one, norm = sum(row), sum(x**p for x in row) ** (1 / p)
        a.append(one / norm if norm else 0.0)
    top = max(a)
    return [x / top if top else 0.0 for x in a]


@pytest.mark.parametrize("seed", range(20))
def test_score_density_and_instruction_score_follow_the_definitions(seed):
    rng = np.random.default_rng(seed)
    N, M, L = rng.integers(1, 30), rng.integers(1, 20), int(rng.integers(1, 40))
    b, p = int(rng.integers(0, L)), float(rng.choice([1, 2, 3.5, 4, 6]))
    I = rng.normal(size=(N, M)).astype(np.float32)
    I[:, rng.random(M) < 0.2] *= -1 * (I[:, :1] > 0)
    S = score(I, L, b)
    assert S.dtype == np.uint8
    np.testing.assert_array_equal(S, plain_score(I.astype(float), L, b))
    a = density(S, p)
    np.testing.assert_allclose(a, plain_density(S, p), rtol=1e-12)
    mask = rng.random(N) < 0.5
    want = sum(x for x, m in zip(a, mask, strict=True) if m) / math.log2(2 + mask.sum())
    assert instruction_score(a, mask) == pytest.approx(want, rel=1e-12)


def test_multiples_of_a_level_are_not_rounded_up():
    """k/100 of the largest is level k exactly, for every k."""
    I = np.arange(1, 101, dtype=np.float64)[:, None]
    np.testing.assert_array_equal(score(I, L=100)[:, 0], np.arange(1, 101))


def test_a_positive_factor_per_column_changes_nothing():
    rng = np.random.default_rng(0)
    I = rng.normal(size=(12, 9))
    np.testing.assert_array_equal(score(I), score(I * 2.0 ** rng.integers(-60, 60, 9)))


def test_columns_without_a_positive_entry_and_empty_responses_are_zero():
    assert score(-np.ones((3, 2))).sum() == 0
    S = score(np.zeros((3, 0)))
    assert S.shape == (3, 0)
    assert density(S).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("L", "b", "match"),
    [(0, 0, "L must"), (256, 0, "L must"), (10, 10, "0 to L-1 = 9"), (10, -1, "0 to L-1")],
)
def test_levels_out_of_range_are_refused(L, b, match):
    with pytest.raises(ValueError, match=match):
        score(np.ones((2, 2)), L, b)


def test_not_finite_importance_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        score(np.array([[np.nan]]))


def test_density_before_division_by_the_largest():
    assert density(np.array([[3, 3], [5, 0]]), p=2, normalize=False) == pytest.approx([math.sqrt(2), 1])


def test_profile_bins_by_the_middle_of_each_token():
    a = np.arange(25.0)
    want = [np.mean([a[n] for n in range(25) if int((n + 0.5) / 25 * 10) == k]) for k in range(10)]
    np.testing.assert_allclose(position_profile(a), want)
    even = np.arange(24.0)  # no token on a boundary
    np.testing.assert_allclose(position_profile(even[::-1]), position_profile(even)[::-1])
    assert np.isnan(position_profile(np.ones(3))).sum() == 7
    assert math.isnan(region_mean(a, np.zeros(25, bool)))


def test_metric_is_the_mean_over_samples():
    metric = InstructionScore(L=10, b=2, p=3)
    rng, want = np.random.default_rng(1), []
    for _ in range(4):
        I, mask = rng.normal(size=(7, 5)).astype(np.float32), rng.random(7) < 0.5
        metric.update(torch.from_numpy(I), torch.from_numpy(mask))
        a = plain_density(plain_score(I.astype(float), 10, 2), 3)
        want.append(sum(np.array(a)[mask]) / math.log2(2 + mask.sum()))
    assert metric.compute().item() == pytest.approx(np.mean(want), rel=1e-9)
