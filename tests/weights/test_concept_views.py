"""Principal components, the words that name them and their rotation, against plain re-statements of the method."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from helpers.plain_weights import plain_top
from sklearn.decomposition import PCA

from shiftlens.weights import (
    LayerConcepts,
    closest_words,
    compare_concepts,
    layer_concepts,
    principal_components,
    random_rotation,
    top_by_magnitude,
)
from shiftlens.weights import pca as pca_module

pytestmark = pytest.mark.quick

WIDTH = 320


def matrix(rows: int, width: int, decay: float = 0.0, seed: int = 0) -> np.ndarray:
    """Random rows about a mean that is not 0; with ``decay``, standard deviations fall by rank."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((width, width)))[0]
    return (rng.standard_normal((rows, width)) * np.arange(1, width + 1) ** -decay) @ axes + rng.standard_normal(
        width
    )


@pytest.mark.parametrize("method", ["full", "lanczos"])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_components_equal_those_of_a_singular_value_decomposition(method, decay):
    rows = matrix(700, WIDTH, decay)
    library = PCA(12, svd_solver="full").fit(rows)
    found = principal_components(torch.from_numpy(rows), 12, method)
    np.testing.assert_allclose(found.variance, library.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(found.ratio, library.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(found.total_variance, rows.var(axis=0, ddof=1).sum(), rtol=1e-9)
    cosine = (found.components.numpy() * library.components_).sum(axis=1)
    np.testing.assert_allclose(np.abs(cosine), 1, atol=1e-4)
    largest = np.abs(found.components.numpy()).argmax(axis=1)
    assert (found.components.numpy()[np.arange(12), largest] > 0).all()


@pytest.mark.parametrize("rank", [60, 200])
def test_lanczos_is_taken_for_a_wide_matrix_and_finds_planted_components(monkeypatch, rank):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((500, rank))
    scores = np.linalg.qr(scores - scores.mean(axis=0))[0]
    axes = np.linalg.qr(rng.standard_normal((2048, rank)))[0].T
    deviation = np.arange(1, rank + 1) ** -0.7
    rows = torch.from_numpy(scores * deviation @ axes + rng.standard_normal(2048) / 9).float()
    monkeypatch.setattr(pca_module, "_full", None)  # not to be called
    found = principal_components(rows, 20)
    np.testing.assert_allclose(found.variance, deviation[:20] ** 2 / 499, rtol=1e-4)
    np.testing.assert_allclose(found.ratio, deviation[:20] ** 2 / (deviation**2).sum(), rtol=1e-4)
    np.testing.assert_allclose(np.abs((found.components.numpy() * axes[:20]).sum(axis=1)), 1, atol=1e-4)
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(20), atol=1e-5)


def test_an_iteration_that_does_not_converge_falls_back_to_the_full_decomposition(monkeypatch):
    rows = torch.from_numpy(matrix(700, WIDTH))
    full = principal_components(rows, 5, "full")
    monkeypatch.setattr(pca_module, "TOLERANCE", 0.0)
    assert torch.equal(principal_components(rows, 5, "lanczos").components, full.components)


def test_more_components_than_a_block_iteration_can_hold_come_from_the_full_decomposition():
    rows = torch.from_numpy(matrix(90, 33))
    full = principal_components(rows, 33, "full")
    assert torch.equal(principal_components(rows, 33, "lanczos").components, full.components)


@pytest.mark.parametrize("method", ["full", "lanczos"])
def test_components_beyond_the_rank_have_no_variance(method):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((400, 6)) @ rng.standard_normal((6, WIDTH))
    found = principal_components(torch.from_numpy(rows), 20, method)
    np.testing.assert_allclose(found.ratio[:6].sum(), 1)
    assert found.ratio[5] > 1e-3 and (found.ratio[6:] < 1e-12).all()
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(20), atol=1e-5)


@pytest.mark.parametrize("method", ["full", "lanczos"])
def test_equal_rows_have_no_variance_at_all(method):
    rows = torch.full((50, 40), 0.1) + torch.arange(40) / 7
    found = principal_components(rows, 3, method)
    assert found.total_variance == 0
    assert found.ratio.tolist() == [0, 0, 0]
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(3), atol=1e-6)


def test_half_precision_is_computed_in_single():
    rows = torch.from_numpy(matrix(60, 20)).bfloat16()
    assert torch.equal(principal_components(rows, 4).components, principal_components(rows.float(), 4).components)


@pytest.mark.parametrize(
    ("rows", "k", "method", "message"),
    [
        (torch.eye(4, 6), 5, "auto", "k must be from 1 to 4"),
        (torch.eye(1, 6), 1, "auto", "rows at least 2"),
        (torch.eye(4, 6), 1, "arpack", "method must be auto, full or lanczos"),
        (torch.full((4, 6), torch.nan), 1, "auto", "not finite"),
    ],
)
def test_impossible_components_are_refused(rows, k, method, message):
    with pytest.raises(ValueError, match=message):
        principal_components(rows, k, method)


@pytest.mark.parametrize("top", [1, 7, 60])
def test_top_by_magnitude_is_a_stable_sort_also_with_ties(top):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_normal((20, 60)), rng.integers(-3, 4, (20, 60)), np.zeros((2, 60))])
    found = top_by_magnitude(torch.from_numpy(values), top)
    assert found.tolist() == [plain_top(row, top) for row in values]


def test_values_that_cannot_be_ranked_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        top_by_magnitude(torch.tensor([[1.0, torch.nan, 2.0]]), 1)
    with pytest.raises(ValueError, match="top must be from 1 to the 3 columns, got 4"):
        top_by_magnitude(torch.ones(1, 3), 4)


def test_concepts_are_named_by_the_words_of_largest_cosine():
    down, words = matrix(200, 90, 0.5), matrix(130, 90, seed=1)
    words[7] = 0.0
    words[11] = 2 * words[10]  # a tie up to rounding: both, in some order
    found = layer_concepts(torch.from_numpy(down), torch.from_numpy(words), k=80, top=5)
    library = PCA(80, svd_solver="full").fit(down)
    assert found.words.shape == found.cosine.shape == (80, 5)
    np.testing.assert_allclose(found.explained_variance_ratio, library.explained_variance_ratio_, rtol=1e-9)
    for component, row, cosine in zip(library.components_, found.words, found.cosine, strict=True):
        each = [float(component @ word) / math.sqrt(float(word @ word)) if word.any() else 0.0 for word in words]
        expected = plain_top(np.round(each, 9), 5)
        assert {10 if word == 11 else word for word in row} == {10 if word == 11 else word for word in expected}
        np.testing.assert_allclose(np.abs(cosine), np.abs([each[word] for word in row]), atol=1e-9)


def test_concepts_of_a_small_layer_are_as_many_as_it_has():
    found = layer_concepts(torch.randn(6, 4), torch.randn(3, 4))
    assert found.components.shape == (4, 4)
    assert found.words.shape == (4, 3)


def test_a_word_without_length_is_close_to_nothing():
    words, cosine = closest_words(torch.eye(2), torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, -3.0]]), top=3)
    assert words.tolist() == [[0, 1, 2], [2, 0, 1]]
    assert cosine.tolist() == [[0, 0, 0], [-1, 0, 0]]


def concepts(components: np.ndarray, words: np.ndarray | None = None) -> LayerConcepts:
    k = len(components)
    words = np.arange(k * 4).reshape(k, 4) if words is None else words
    return LayerConcepts(components, np.full(k, 1 / k), words, np.ones(words.shape))


def test_a_layer_against_itself_is_not_rotated():
    found = layer_concepts(torch.randn(80, 60), torch.randn(40, 60), k=20, top=6)
    same = compare_concepts(found, found)
    assert same.angles.max() < 1e-6 and same.overlap == pytest.approx(1)
    assert same.match.tolist() == list(range(20))
    np.testing.assert_allclose(same.cosine, 1, atol=1e-5)
    assert not same.left.any() and not same.entered.any()


def test_a_known_rotation_is_measured():
    turn = np.eye(6)
    turn[np.ix_([1, 4], [1, 4])] = [[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]]
    base = np.eye(3, 6)
    found = compare_concepts(concepts(base), concepts(-(base @ turn)[[2, 0, 1]]))
    np.testing.assert_allclose(found.angles, [0, 0, 0.3], atol=1e-12)
    assert found.match.tolist() == [1, 2, 0]
    np.testing.assert_allclose(found.cosine, [1, math.cos(0.3), 1])
    assert found.overlap == pytest.approx((2 + math.cos(0.3) ** 2) / 3)


def test_matching_angles_and_words_equal_a_search_over_all_permutations():
    rng = np.random.default_rng(3)
    A, B = (np.linalg.qr(rng.standard_normal((12, 5)))[0].T for _ in range(2))
    words = [np.stack([rng.permutation(9)[:4] for _ in range(5)]) for _ in range(2)]
    found = compare_concepts(concepts(A, words[0]), concepts(B, words[1]))
    near = np.abs(A @ B.T)
    best = max(itertools.permutations(range(5)), key=lambda order: sum(near[i, j] for i, j in enumerate(order)))
    assert tuple(found.match) == best
    np.testing.assert_allclose(found.cosine, [near[i, j] for i, j in enumerate(best)])
    np.testing.assert_allclose(np.cos(found.angles), np.linalg.svd(A @ B.T, compute_uv=False))
    for i, j in enumerate(best):
        before, after = words[0][i].tolist(), words[1][j].tolist()
        assert found.left[i].tolist() == [word not in after for word in before]
        assert found.entered[i].tolist() == [word not in before for word in after]


def test_concepts_of_different_models_are_refused():
    with pytest.raises(ValueError, match=r"\[3, 6\] and \[3, 7\]"):
        compare_concepts(concepts(np.eye(3, 6)), concepts(np.eye(3, 7)))


@pytest.mark.parametrize(("width", "k"), [(40, 8), (10, 7)])
def test_the_null_of_unrelated_subspaces_is_that_of_independent_draws(width, k):
    null = random_rotation(width, k, draws=400, seed=1)
    overlap = (np.cos(null.angles) ** 2).mean(axis=1)
    standard_error = overlap.std(ddof=1) / 20
    assert overlap.mean() == pytest.approx(k / width, abs=4 * standard_error)  # trace of two projections
    rng = np.random.default_rng(2)
    draws = [
        compare_concepts(*(concepts(np.linalg.qr(rng.standard_normal((width, k)))[0].T) for _ in range(2)))
        for _ in range(200)
    ]
    smallest = np.array([draw.angles for draw in draws])[:, -1]
    assert smallest.mean() == pytest.approx(null.angles[:, -1].mean(), abs=5 * smallest.std() / 14)
    matched = np.array([draw.cosine.mean() for draw in draws])
    assert matched.mean() == pytest.approx(null.cosine.mean(), abs=5 * matched.std() / 14)
    assert (np.cos(null.angles) ** 2 > 1 - 1e-9).sum(axis=1).min() >= max(0, 2 * k - width)  # must intersect


def test_the_null_is_a_function_of_its_seed():
    assert np.array_equal(random_rotation(9, 3, 2, seed=5).angles, random_rotation(9, 3, 2, seed=5).angles)
    assert not np.array_equal(random_rotation(9, 3, 2, seed=5).angles, random_rotation(9, 3, 2, seed=6).angles)
    with pytest.raises(ValueError, match="k must be from 1 to the width 3"):
        random_rotation(3, 4)
