"""Replaces the derivative of an operation by that of another, linear one, and leaves its value as it is.

These are the elementary rules of AttnLRP (Achtibat et al. 2024, arXiv 2402.05602) as modified derivatives: the
relevance of a vector x is then ``<d f / d x, x>``, at every place of a model. Both forward- and reverse-mode
differentiation see them, because ``detach`` stops tangents as well as cotangents.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def as_linear(value: Float[Tensor, "*any"], linear: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Return a value with the derivative of another expression.

    Args:
        value: Value to return, bit for bit.
        linear: Finite expression of the same shape whose derivative the result has.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> y = as_linear(x**2, 3 * x)
        >>> y.item(), torch.autograd.grad(y, x)[0].item()
        (9.0, 3.0)
    """
    return value.detach() + (linear - linear.detach())


def shared(x: Float[Tensor, "*any"], parts: int) -> Float[Tensor, "*any"]:
    """Return a factor of a product with its derivative divided by the number of factors.

    The relevance of a product is thereby shared equally by its factors (the uniform rule).

    Args:
        x: One factor.
        parts: Number of factors.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> torch.autograd.grad(shared(x, 2) * shared(x, 2), x)[0].item()  # half of 2 x
        3.0
    """
    return as_linear(x, x / parts)


def with_ratio(
    value: Float[Tensor, "*any"], x: Float[Tensor, "*any"], at_zero: float = 1.0
) -> Float[Tensor, "*any"]:
    """Return the value of a function that acts on each entry, with the derivative ``value / x``.

    All relevance of an output entry thereby goes to its one input entry (the identity rule).

    Args:
        value: Output of the function, 0 where x is 0.
        x: Its input, of the same shape.
        at_zero: Derivative where x is 0: the limit of the ratio.

    Example:
        >>> x = torch.tensor([2.0, 0.0], requires_grad=True)
        >>> torch.autograd.grad(with_ratio(x**2, x, at_zero=0.0).sum(), x)[0].tolist()
        [2.0, 0.0]
    """
    ratio = torch.where(x == 0, at_zero, value / torch.where(x == 0, 1, x))
    return as_linear(value, ratio.detach() * x)


def normed(
    value: Float[Tensor, "*any size"],
    x: Float[Tensor, "*any size"],
    gain: Float[Tensor, " size"],
    shift: Float[Tensor, " size"] | None,
    *,
    centred: bool,
) -> Float[Tensor, "*any size"]:
    """Return the value of a norm with the derivative of ``scale * (x - mean) * gain``, the scale held constant.

    The identity rule applies to the division by the norm's denominator. Centring is linear and keeps its
    derivative.

    Args:
        value: [..., size] Output of the norm, ``scale * (x - mean) * gain + shift`` with one scale per vector.
        x: [..., size] Its input.
        gain: [size] Factor of each entry.
        shift: [size] What the norm adds to each entry; ``None`` for nothing.
        centred: Whether the norm subtracts the mean.

    Example:
        >>> x = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> y = normed(x / x.norm(), x, torch.ones(2), None, centred=False)
        >>> torch.autograd.grad(y[0], x)[0]  # 1 / 5, and nothing by way of the length
        tensor([0.2000, 0.0000])
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    x = x.to(wide)
    direction = ((x - x.mean(-1, keepdim=True)) if centred else x) * gain.to(x)  # [..., size]
    # The norm's own scale, from its output: no epsilon has to be known.
    scaled = value.to(wide) if shift is None else value.to(wide) - shift.to(x)
    length = direction.square().sum(-1, keepdim=True).clamp_min(torch.finfo(wide).tiny)
    scale = ((scaled * direction).sum(-1, keepdim=True) / length).detach()  # [..., 1]
    return as_linear(value, (scale * direction).to(value.dtype))
