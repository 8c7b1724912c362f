"""The leading principal components of a tall matrix, at little more than the cost of its covariance.

A narrow matrix goes through the full eigendecomposition of its covariance, as in scikit-learn's
``PCA(svd_solver="covariance_eigh")``. For a wide one that decomposition is most of the time, though few
components are wanted: there a block Lanczos iteration with full orthogonalization is taken (Golub & Van
Loan, Matrix Computations, section 10.3), checked by true residuals, with the full decomposition as the way out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from scipy.linalg import blas
from torch import Tensor, linalg

BLOCK = 32
"""Vectors per Lanczos step: wide enough for a fast product, small enough for a good Krylov space."""
TOLERANCE = 1e-5
"""Largest residual of an accepted component, over the largest eigenvalue; near the rounding of float32."""


@dataclass(frozen=True)
class PrincipalComponents:
    """Principal components of a matrix, largest variance first.

    Args:
        components: [k, width] orthonormal rows; the entry of largest magnitude of each is positive.
        variance: [k] variance along each, with rows - 1 in the denominator.
        ratio: [k] share of the total variance; 0 where there is no variance.
        total_variance: sum of the variances of all columns.
    """

    components: Float[Tensor, "k width"]
    variance: Float[Tensor, " k"]
    ratio: Float[Tensor, " k"]
    total_variance: float


def principal_components(rows: Float[Tensor, "rows width"], k: int, method: str = "auto") -> PrincipalComponents:
    """The top-k principal components of a matrix's rows.

    Args:
        rows: [rows, width] on any device; half precision is computed in float32.
        k: number of components, at most rows and width. Beyond the rank of the centred rows their
            variance is 0 (up to rounding) and their directions are arbitrary.
        method: ``full`` decomposition, ``lanczos``, or ``auto``: the faster of the two by shape.

    Returns:
        Components, variances and shares on the device of ``rows``; those of ``lanczos`` have residuals of at
        most :data:`TOLERANCE`, or else come from the full decomposition.

    Raises:
        ValueError: fewer than two rows, k out of range, an unknown method, or entries that are not finite.

    Example:
        >>> found = principal_components(torch.tensor([[0.0, 1.0], [4.0, 1.0], [8.0, 1.0]]), k=1)
        >>> found.components.tolist(), found.ratio.tolist(), found.total_variance
        ([[1.0, 0.0]], [1.0], 16.0)
    """
    count, width = rows.shape
    if count < 2 or not 1 <= k <= min(count, width):
        raise ValueError(
            f"k must be from 1 to {min(count, width)} and rows at least 2, got k={k} for {count} rows"
        )
    if method not in ("auto", "full", "lanczos"):
        raise ValueError(f"method must be auto, full or lanczos, got {method}")
    iterate = method == "lanczos" or (method == "auto" and width >= max(10 * k, 2048))
    C = covariance(rows) if iterate else _lower_covariance(rows)
    total = float(C.diagonal().sum(dtype=torch.float64))
    if not np.isfinite(total):
        raise ValueError(
            f"the matrix of {count} x {width} has entries that are not finite, or too large to square"
        )
    pairs = _lanczos(C, k) if iterate and total > 0 else None
    variance, vectors = _full(C, k) if pairs is None else pairs
    variance = variance.clamp(min=0)
    components = _oriented(vectors.T)
    return PrincipalComponents(components, variance, variance / total if total > 0 else variance, total)


def covariance(rows: Float[Tensor, "rows width"]) -> Float[Tensor, "width width"]:
    """Covariance of the columns, with rows - 1 in the denominator.

    Args:
        rows: [rows, width], two rows at least.

    Example:
        >>> covariance(torch.tensor([[0.0, 1.0], [2.0, 1.0]])).tolist()
        [[2.0, 0.0], [0.0, 0.0]]
    """
    C = _lower_covariance(rows)
    if C.device.type == "cpu":
        C += C.tril(-1).T
    return C


def _lower_covariance(rows: Float[Tensor, "rows width"]) -> Float[Tensor, "width width"]:
    """The same with, on a CPU, the upper triangle left at 0: there half of the product is enough.

    The mean is taken in float64, so that equal rows leave exactly nothing. On a CPU nothing from here to the
    oriented components is done by torch if it could take threads. scipy's own, done with their part, stay awake
    for a while, and torch's would wait for their cores: as long as a small matrix takes as a whole.
    """
    rows = rows.detach().to(torch.promote_types(rows.dtype, torch.float32))
    if rows.device.type != "cpu":
        centred = rows - rows.mean(dim=0, dtype=torch.float64).to(rows)
        return (centred.T @ centred).div_(len(rows) - 1)
    values = rows.numpy()
    values = values - values.mean(axis=0, dtype=np.float64).astype(values.dtype)
    syrk = blas.get_blas_funcs("syrk", (values,))
    return torch.from_numpy(syrk(1 / (len(values) - 1), values.T, lower=1))


def _full(C: Float[Tensor, "width width"], k: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "width k"]]:
    """Top-k eigenpairs from the whole decomposition of a matrix, of which the lower triangle is read."""
    if C.device.type == "cpu":
        rising, columns = scipy.linalg.eigh(C.numpy(), driver="evd", overwrite_a=True, check_finite=False)
        return torch.from_numpy(rising[::-1][:k].copy()), torch.from_numpy(columns.T[::-1][:k].copy()).T
    values, vectors = linalg.eigh(C)
    return values.flip(0)[:k], vectors.flip(1)[:, :k]


def _oriented(components: Float[Tensor, "k width"]) -> Float[Tensor, "k width"]:
    """Rows times 1 or -1, so that the entry of largest magnitude of each is positive; by numpy, in one thread."""
    values = np.ascontiguousarray(components.cpu().numpy())
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, None], axis=1)
    return torch.from_numpy(values * np.where(largest < 0, -1, 1).astype(values.dtype)).to(components.device)


def _lanczos(
    C: Float[Tensor, "width width"], k: int
) -> tuple[Float[Tensor, " k"], Float[Tensor, "width k"]] | None:
    """Top-k eigenpairs from a block Krylov space, grown until they are accurate; None if it grows too large."""
    width = len(C)
    most = min(width, int(0.6 * width) + 2 * k) // BLOCK * BLOCK
    if most < k:
        return None
    check = min(4 * k, most)
    generator = torch.Generator().manual_seed(0)
    Q = linalg.qr(torch.randn(width, BLOCK, generator=generator, dtype=C.dtype).to(C.device))[0]
    basis, T = C.new_empty(width, most), C.new_zeros(most, most)
    before, R = Q[:, :0], C.new_empty(BLOCK, 0)  # the last block, and the part of C times it that lies in Q
    for start in range(0, most, BLOCK):
        size = start + BLOCK
        basis[:, start:size] = Q
        V = basis[:, :size]
        W = C @ Q
        scale = linalg.vector_norm(W, dim=0).max()
        A = Q.T @ W
        T[start:size, start:size] = A
        back = slice(max(start - BLOCK, 0), start)
        T[back, start:size], T[start:size, back] = R.T, R
        # The recurrence first: the pass over the whole basis then has only rounding to remove.
        W -= Q @ A + before @ R.T
        W -= V @ (V.T @ W)
        before = Q
        Q, R = linalg.qr(W)
        if R.diagonal().abs().min() < 0.05 * scale:  # cancellation: what is left is partly rounding
            Q, again = linalg.qr(Q - V @ (V.T @ Q))
            R = again @ R
        if size >= check:
            values, Y = linalg.eigh(T[:size, :size])
            values, Y = values.flip(0)[:k], Y.flip(1)[:, :k]
            residual = float(linalg.vector_norm(R @ Y[start:], dim=0).max() / values[0])
            if residual <= TOLERANCE / 2:
                U = V @ Y
                return (values, U) if _accurate(C, values, U) else None
            # The residual falls ever faster: a large one is far from the end, and each look costs size**3.
            check = min(int((1.7 if residual > 0.01 else 1.3) * size), most)
    return None


def _accurate(C: Float[Tensor, "width width"], values: Float[Tensor, " k"], U: Float[Tensor, "width k"]) -> bool:
    """Whether the pairs solve ``C u = value u`` and the vectors are orthonormal, both to the tolerance."""
    residual = linalg.vector_norm(C @ U - U * values, dim=0).max() / values[0]
    overlap = U.T @ U
    overlap.diagonal().sub_(1)
    return bool(max(float(residual), float(overlap.abs().max())) <= TOLERANCE)
