"""Multiplies float32 or float64 values by weights of a model in any floating-point dtype.

The hand-written derivatives hold their own values in at least float32: differences that cancel (softmax, norms)
and sums over many terms (the residual stream, layers) keep their digits. Only products with weights, nearly all of
the work, run in the dtype of a model in half precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Widened(TorchFunctionMode):
    """Context in which a model in half precision computes in float32, with each weight widened while it is used.

    Errors of half precision in the values at which a model is differentiated add up over its layers, and would be
    ten times those of the derivatives' own products. One pass serves all derivatives, so it costs little.

    Example:
        >>> layer = nn.Linear(2, 2, dtype=torch.bfloat16)
        >>> with Widened():
        ...     layer(torch.ones(1, 2)).dtype
        torch.float32
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Widen what an embedding returns, and the weight and bias of a linear map to the dtype of its input."""
        if func is nn.functional.linear:
            x, *weights = args
            return func(
                x, *(weight if weight is None else weight.to(x.dtype) for weight in weights), **(kwargs or {})
            )
        out = func(*args, **(kwargs or {}))
        if func is nn.functional.embedding:
            return out.to(torch.promote_types(out.dtype, torch.float32))
        return out


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply rows by a matrix, in the matrix' dtype.

    Args:
        x: [rows, inner] values, at least float32.
        weight: [inner, outer] matrix, perhaps in half precision.

    Returns:
        [rows, outer] in the dtype of x.

    Example:
        >>> product(torch.tensor([[2**-40, 2**-40]]), torch.ones(2, 1, dtype=torch.float16)).item() == 2**-39
        True
    """
    if x.dtype == weight.dtype:
        return x @ weight
    narrow, scale = _narrowed(x, weight.dtype)
    return (narrow @ weight).to(x.dtype).mul_(scale)


def add_product(out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Add :func:`product` of x and weight to ``out``, [rows, outer], in place; return it."""
    if x.dtype == weight.dtype:
        return out.addmm_(x, weight)
    narrow, scale = _narrowed(x, weight.dtype)
    return out.addcmul_((narrow @ weight).to(out.dtype), scale)


def apply(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear map of the model to x, [..., inner], in the model's dtype; return the dtype of x."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    out: Tensor = module(x.to(weight.dtype))
    return out.to(x.dtype)


def _narrowed(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Round rows to half precision; return them and their scale, [rows, 1] or [1].

    Derivatives fade with the distance from where they enter, so in float16, whose smallest number is 6e-8, each
    row is scaled to a largest entry of 1. bfloat16 has the range of float32.
    """
    if dtype != torch.float16:
        return x.to(dtype), x.new_ones(1)
    scale = x.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return (x / scale).to(dtype), scale
