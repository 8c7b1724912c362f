"""Computes the leading principal components of a tall matrix, at little more than the cost of its covariance.

For a narrow matrix, this is the full eigendecomposition of the covariance, as in scikit-learn's
``PCA(svd_solver="covariance_eigh")``. For a wide matrix, that decomposition would take most of the time although
few components are needed. There a block Lanczos iteration with full orthogonalization is used (Golub & Van Loan,
Matrix Computations, section 10.3); its results are checked by their true residuals, and the full decomposition is
the fallback.
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
"""Vectors per Lanczos step: enough for a fast matrix product, few enough for a good Krylov space."""
TOLERANCE = 1e-5
"""Largest residual of an accepted component, relative to the largest eigenvalue; near the precision of float32."""


@dataclass(frozen=True)
class PrincipalComponents:
    """Principal components of a matrix, largest variance first.

    Args:
        components: [k, width] orthonormal rows; the entry of largest magnitude in each is positive.
        variance: [k] variance along each component, with rows - 1 in the denominator.
        ratio: [k] share of the total variance; 0 if the total is 0.
        total_variance: Sum of the variances of all columns.
    """

    components: Float[Tensor, "k width"]
    variance: Float[Tensor, " k"]
    ratio: Float[Tensor, " k"]
    total_variance: float


def principal_components(rows: Float[Tensor, "rows width"], k: int, method: str = "auto") -> PrincipalComponents:
    """Compute the top-k principal components of the rows of a matrix.

    Args:
        rows: [rows, width] matrix on any device; half precision is computed in float32.
        k: Number of components, at most the smaller of rows and width. Beyond the rank of the centred rows, the
            variance is 0 (up to rounding) and the directions are arbitrary.
        method: ``full`` (eigendecomposition), ``lanczos``, or ``auto``, the faster of the two for this shape.

    Returns:
        Components, variances and shares on the device of ``rows``. The residuals of ``lanczos`` are at most
        :data:`TOLERANCE`; if it cannot reach this, the result is that of the full decomposition.

    Raises:
        ValueError: If there are fewer than two rows, ``k`` is out of range, the method is unknown, or an entry is
            not finite.

    Example:
        >>> pca = principal_components(torch.tensor([[0.0, 1.0], [4.0, 1.0], [8.0, 1.0]]), k=1)
        >>> pca.components.tolist(), pca.ratio.tolist(), pca.total_variance
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
    eigenpairs = _lanczos(C, k) if iterate and total > 0 else None
    variance, vectors = _full(C, k) if eigenpairs is None else eigenpairs
    variance = variance.clamp(min=0)
    components = _oriented(vectors.T)
    return PrincipalComponents(components, variance, variance / total if total > 0 else variance, total)


def covariance(rows: Float[Tensor, "rows width"]) -> Float[Tensor, "width width"]:
    """Return the covariance of the columns of a matrix, with rows - 1 in the denominator.

    Args:
        rows: [rows, width] matrix with at least two rows.

    Example:
        >>> covariance(torch.tensor([[0.0, 1.0], [2.0, 1.0]])).tolist()
        [[2.0, 0.0], [0.0, 0.0]]
    """
    C = _lower_covariance(rows)
    if C.device.type == "cpu":
        C += C.tril(-1).T
    return C


def _lower_covariance(rows: Float[Tensor, "rows width"]) -> Float[Tensor, "width width"]:
    """Return the covariance; on a CPU only its lower triangle, with 0 above, which takes half of the product.

    The mean is computed in float64, so that the covariance of equal rows is exactly 0. On a CPU, no step from here
    to the oriented components uses a torch operation that could start threads: scipy's own threads stay awake for
    a while after their work, and torch's would wait for their cores, for as long as a small matrix takes in total.
    """
    rows = rows.detach().to(torch.promote_types(rows.dtype, torch.float32))
    if rows.device.type != "cpu":
        centred = rows - rows.mean(dim=0, dtype=torch.float64).to(rows)
        return (centred.T @ centred).div_(len(rows) - 1)
    values = rows.numpy()  # [rows, width]
    values = values - values.mean(axis=0, dtype=np.float64).astype(values.dtype)
    syrk = blas.get_blas_funcs("syrk", (values,))
    return torch.from_numpy(syrk(1 / (len(values) - 1), values.T, lower=1))


def _full(C: Float[Tensor, "width width"], k: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "width k"]]:
    """Return the top-k eigenpairs by full decomposition of a symmetric matrix; only its lower triangle is read."""
    if C.device.type == "cpu":
        rising, columns = scipy.linalg.eigh(C.numpy(), driver="evd", overwrite_a=True, check_finite=False)
        return torch.from_numpy(rising[::-1][:k].copy()), torch.from_numpy(columns.T[::-1][:k].copy()).T
    values, vectors = linalg.eigh(C)
    return values.flip(0)[:k], vectors.flip(1)[:, :k]


def _oriented(components: Float[Tensor, "k width"]) -> Float[Tensor, "k width"]:
    """Multiply each row by 1 or -1, so that its entry of largest magnitude is positive.

    This uses numpy, which runs it in one thread.
    """
    values = np.ascontiguousarray(components.cpu().numpy())
    extreme = np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, None], axis=1)
    return torch.from_numpy(values * np.where(extreme < 0, -1, 1).astype(values.dtype)).to(components.device)


def _lanczos(
    C: Float[Tensor, "width width"], k: int
) -> tuple[Float[Tensor, " k"], Float[Tensor, "width k"]] | None:
    """Return the top-k eigenpairs from a block Krylov space, extended until they are accurate enough.

    Returns:
        [k] eigenvalues, descending, and [width, k] eigenvectors; ``None`` if the space would grow too large, or
        the pairs fail the final check.
    """
    width = len(C)
    max_size = min(width, int(0.6 * width) + 2 * k) // BLOCK * BLOCK
    if max_size < k:
        return None
    next_check = min(4 * k, max_size)
    generator = torch.Generator().manual_seed(0)
    Q = linalg.qr(torch.randn(width, BLOCK, generator=generator, dtype=C.dtype).to(C.device))[0]
    basis, T = C.new_empty(width, max_size), C.new_zeros(max_size, max_size)
    previous, R = Q[:, :0], C.new_empty(BLOCK, 0)  # Q @ R is what C @ previous adds to the basis
    for start in range(0, max_size, BLOCK):
        size = start + BLOCK
        basis[:, start:size] = Q
        V = basis[:, :size]  # [width, size]
        W = C @ Q  # [width, BLOCK]
        scale = linalg.vector_norm(W, dim=0).max()
        A = Q.T @ W  # [BLOCK, BLOCK]
        T[start:size, start:size] = A
        previous_block = slice(max(start - BLOCK, 0), start)
        T[previous_block, start:size], T[start:size, previous_block] = R.T, R
        # Apply the recurrence first, so that the pass over the whole basis only removes rounding errors.
        W -= Q @ A + previous @ R.T
        W -= V @ (V.T @ W)
        previous = Q
        Q, R = linalg.qr(W)
        if R.diagonal().abs().min() < 0.05 * scale:  # cancellation: the remainder is partly rounding error
            Q, correction = linalg.qr(Q - V @ (V.T @ Q))
            R = correction @ R
        if size >= next_check:
            values, Y = linalg.eigh(T[:size, :size])
            values, Y = values.flip(0)[:k], Y.flip(1)[:, :k]
            residual = float(linalg.vector_norm(R @ Y[start:], dim=0).max() / values[0])
            if residual <= TOLERANCE / 2:
                U = V @ Y
                return (values, U) if _accurate(C, values, U) else None
            # Each check costs size**3, so check rarely while the residual is large; it falls faster and faster.
            next_check = min(int((1.7 if residual > 0.01 else 1.3) * size), max_size)
    return None


def _accurate(C: Float[Tensor, "width width"], values: Float[Tensor, " k"], U: Float[Tensor, "width k"]) -> bool:
    """Return whether ``C u = value u`` holds and the vectors are orthonormal, both within the tolerance."""
    residual = linalg.vector_norm(C @ U - U * values, dim=0).max() / values[0]
    overlap = U.T @ U
    overlap.diagonal().sub_(1)
    return bool(max(float(residual), float(overlap.abs().max())) <= TOLERANCE)
