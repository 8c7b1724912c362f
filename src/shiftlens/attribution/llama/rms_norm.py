"""Holds an RMS norm's values at its input and its derivatives in both directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ALL = slice(None)


class Norm:
    """Value ``y`` of an RMS norm at its input x, and the derivatives in both directions.

    Args:
        norm: RMS norm module.
        x: [positions, ..., width] input of the norm, at least float32.
        lrp: Whether r counts as a constant, so that the terms with x^ below are left out.
    """

    def __init__(self, norm: Any, x: Tensor, lrp: bool) -> None:
        self.lrp = lrp
        r = torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)  # [positions, ..., 1]
        weight = norm.weight.to(x.dtype)  # [width]
        # hat, gain, y: [positions, ..., width]
        self.hat = x * r
        self.gain = weight * r
        self.y = weight * self.hat

    def tangent(self, dx: Tensor, at: slice | Tensor, out: Tensor | None = None) -> Tensor:
        """Compute ``w r (dx - x^ <x^, dx> / width)``, the tangents of the norm's output.

        Args:
            dx: [positions, tangents, ..., width] tangents of the norm's input.
            at: Positions of dx within x.
            out: Tensor of dx's shape for the result; by default a new one.
        """
        hat, gain = self.hat[at][:, None], self.gain[at][:, None]  # [positions, 1, ..., width]
        if self.lrp:
            return torch.mul(dx, gain, out=out)
        return torch.addcmul(dx, hat, _along(dx, hat), value=-1 / dx.shape[-1], out=out).mul_(gain)

    def cotangent(self, dy: Tensor, at: slice | Tensor = _ALL) -> Tensor:
        """Compute ``u - x^ <x^, u> / width``, ``u = w r dy``, the cotangents of the norm's input; overwrites dy.

        Args:
            dy: [positions, cotangents, ..., width] cotangents of the norm's output.
            at: Positions of dy within x; by default all of them.
        """
        # hat: [positions, 1, ..., width]; u: [positions, cotangents, ..., width]
        hat, u = self.hat[at][:, None], dy.mul_(self.gain[at][:, None])
        return u if self.lrp else u.addcmul_(hat, _along(u, hat), value=-1 / u.shape[-1])


def _along(x: Tensor, hat: Tensor) -> Tensor:
    """Compute the inner product of every derivative with its position's x^, [positions, derivatives, ..., 1]."""
    if x.ndim == 3:  # one matrix product per position, without a copy of x^ for each derivative
        return x @ hat.mT  # [positions, derivatives, 1]
    return (x.unsqueeze(-2) @ hat.unsqueeze(-1)).squeeze(-1)  # one norm per head: [..., groups, repeat, 1]
