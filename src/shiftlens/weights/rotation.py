"""Measures how far tuning rotated the concepts of a layer: subspaces, matched components, and their words.

The paper infers rotation from the annotations of concepts. This module measures it: the principal angles (Björck &
Golub 1973) say how far the space of the concepts moved as a whole, a one-to-one matching says which tuned concept
corresponds to which base concept, and random subspaces give the values expected by chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment

from shiftlens.weights.layer_concepts import LayerConcepts


@dataclass(frozen=True)
class Rotation:
    """Comparison of one layer's concepts, base against tuned.

    Args:
        angles: [k] principal angles between the two top-k subspaces in radians, smallest first; all are 0 for
            equal subspaces, and pi/2 marks a direction that the other subspace lacks.
        match: [k] index of the tuned concept that is matched to each base concept.
        cosine: [k] ``|cosine|`` between each base concept and its match.
        left: [k, base_top] which words of the base concept are not in its match.
        entered: [k, tuned_top] which words of the matched tuned concept are not in the base concept; column j is
            about word j of that tuned concept.
    """

    angles: Float[np.ndarray, " k"]
    match: Int64[np.ndarray, " k"]
    cosine: Float[np.ndarray, " k"]
    left: Bool[np.ndarray, "k base_top"]
    entered: Bool[np.ndarray, "k tuned_top"]

    @property
    def overlap(self) -> float:
        """Mean squared cosine of the principal angles: 1 for equal subspaces, k / width expected by chance."""
        return float(np.mean(np.cos(self.angles) ** 2))


@dataclass(frozen=True)
class RotationNull:
    """Angles and cosines of pairs of unrelated, random subspaces of the same size.

    Args:
        angles: [draws, k] principal angles in radians, smallest first.
        cosine: [draws, k] ``|cosine|`` of matched components.
    """

    angles: Float[np.ndarray, "draws k"]
    cosine: Float[np.ndarray, "draws k"]


def compare_concepts(base: LayerConcepts, tuned: LayerConcepts) -> Rotation:
    """Compare the concepts of one layer before and after tuning.

    Args:
        base: Concepts of the base model's layer.
        tuned: Concepts of the same layer of the tuned model, with the same k, width and word list.

    Returns:
        Angles, matching and changed words; a layer compared with itself has angles 0 and no changed word.

    Raises:
        ValueError: If the numbers of concepts or the widths differ.

    Example:
        >>> axes, share, cosine = np.eye(2, 3), np.array([0.5, 0.4]), np.ones((2, 2))
        >>> base = LayerConcepts(axes, share, np.array([[4, 7], [1, 2]]), cosine)
        >>> turned = compare_concepts(base, LayerConcepts(axes[::-1], share, np.array([[1, 2], [7, 5]]), cosine))
        >>> turned.angles.tolist(), turned.match.tolist(), turned.left.tolist(), turned.entered.tolist()
        ([0.0, 0.0], [1, 0], [[True, False], [False, False]], [[False, True], [False, False]])
    """
    if base.components.shape != tuned.components.shape:
        raise ValueError(
            "base and tuned must have the same number of concepts and the same width, "
            f"got [k, width] = {list(base.components.shape)} and {list(tuned.components.shape)}"
        )
    # In float64, because float32 cannot distinguish angles below 3e-4 from 0.
    A, B = base.components.astype(np.float64), tuned.components.astype(np.float64)
    match, cosine = _matched(A @ B.T)
    tuned_words = tuned.words[match]
    same = base.words[:, :, None] == tuned_words[:, None, :]
    return Rotation(subspace_angles(A.T, B.T)[::-1].copy(), match, cosine, ~same.any(axis=2), ~same.any(axis=1))


def random_rotation(width: int, k: int, draws: int = 20, seed: int = 0) -> RotationNull:
    """Simulate the angles and matched cosines of two uniformly random k-dimensional subspaces.

    Args:
        width: Dimension of the space.
        k: Dimension of both subspaces.
        draws: Number of independent pairs of subspaces.
        seed: Random seed for the subspaces.

    Raises:
        ValueError: If ``k`` is not from 1 to ``width``, or ``draws`` is not positive.

    Example:
        >>> null = random_rotation(width=50, k=5, draws=200)
        >>> round(float(np.mean(np.cos(null.angles) ** 2)), 2)  # expected: k / width
        0.1
    """
    if not 1 <= k <= width or draws < 1:
        raise ValueError(f"k must be from 1 to the width {width} and draws positive, got k={k}, draws={draws}")
    rng = np.random.default_rng(seed)
    angles, cosine = np.empty((draws, k)), np.empty((draws, k))
    for draw in range(draws):
        # Only the relative position of the two matters, so one of them can be the span of the first k axes.
        inner = np.linalg.qr(rng.standard_normal((width, k)))[0][:k]
        angles[draw] = np.arccos(np.linalg.svd(inner, compute_uv=False).clip(max=1.0))
        cosine[draw] = _matched(inner)[1]
    return RotationNull(angles, cosine)


def _matched(inner: Float[np.ndarray, "k k"]) -> tuple[Int64[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Return the one-to-one matching with the largest sum of ``|cosine|``, given the cosines [k, k].

    Returns:
        [k] matched column of each row, and [k] ``|cosine|`` of each matched pair.
    """
    rows, match = linear_sum_assignment(np.abs(inner), maximize=True)
    return match.astype(np.int64), np.abs(inner[rows, match])
