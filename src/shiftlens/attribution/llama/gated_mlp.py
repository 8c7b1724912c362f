"""Holds the values of a gated MLP that its derivatives need."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from shiftlens.attribution.llama.products import apply


class Gates(NamedTuple):
    """Primal values of the gated MLP ``z = a(g) u``, [positions, inner] each.

    Args:
        by_gate: Derivative of z with respect to g, ``a'(g) u``; under LRP ``a(g) / g u / 2``.
        by_up: Derivative of z with respect to u, ``a(g)``; under LRP ``a(g) / 2``.
        out: z.
    """

    by_gate: Tensor
    by_up: Tensor
    out: Tensor


def gates(mlp: Any, y: Tensor, lrp: bool) -> Gates:
    """Compute the primal values of a gated MLP.

    Args:
        mlp: MLP module.
        y: [positions, width] input of the MLP, at least float32.
        lrp: Whether to pass relevance by the rules of AttnLRP.
    """
    gate, up = apply(mlp.gate_proj, y), apply(mlp.up_proj, y)  # [positions, inner] each
    with torch.enable_grad():
        leaf = gate.detach().requires_grad_()
        active = mlp.act_fn(leaf)
        (slope,) = torch.autograd.grad(active.sum(), leaf)
    active = active.detach()
    if lrp:  # at g = 0 the ratio a(g) / g is a'(0)
        return Gates(torch.where(gate == 0, slope, active / gate) * up / 2, active / 2, active * up)
    return Gates(slope * up, active, active * up)
