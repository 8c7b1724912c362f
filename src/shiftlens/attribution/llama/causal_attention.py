"""Holds the values of causal attention that its derivatives need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from shiftlens.attribution.llama.products import apply
from shiftlens.attribution.llama.rms_norm import Norm

BLOCK = {"cpu": 32, "cuda": 256}
"""Query positions per attention block. Blocks bound the memory, skip later keys and fit a CPU's cache."""


class Attention:
    """Primal values of causal attention, for the positions of a window at the end of the keys.

    Args:
        module: Attention module.
        y: [positions, width] input of the attention, at least float32 as are key and value.
        key: [groups, keys, head] rotated keys.
        value: [groups, keys, head] values.
        cos: [positions, head] cosines from :func:`rotations`; ``sin`` likewise.
        lrp: Whether to pass relevance by the rules of AttnLRP.

    Attributes:
        to_logits: Factor of derivatives of Q K^T that arrive from Q, or from K: 1; under LRP 1/4.
        to_values: Factor of derivatives that arrive from V: 1; under LRP 1/2.
    """

    def __init__(
        self, module: Any, y: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor, lrp: bool
    ) -> None:
        self.module, self.key, self.value, self.cos, self.sin = module, key, value, cos, sin
        self.to_logits, self.to_values = (0.25, 0.5) if lrp else (1.0, 1.0)
        groups, total, head = key.shape
        self.prefix = total - len(y)  # keys before the window
        q = apply(module.q_proj, y).view(len(y), groups, -1, head)  # [positions, groups, repeat, head]
        self.k_norm = self.q_norm = None
        if hasattr(module, "q_norm"):  # Qwen3 normalizes the query and key of each head
            self.q_norm = Norm(module.q_norm, q, lrp)
            self.k_norm = Norm(module.k_norm, apply(module.k_proj, y).view(len(y), groups, 1, head), lrp)
            q = self.q_norm.y
        # Q is scaled here; for derivatives of Q the keys are scaled instead.
        self.query = self.rotate(q).permute(1, 0, 2, 3) * module.scaling  # [groups, positions, repeat, head]
        # [positions, keys], true where a key lies after the query
        future = torch.ones(len(y), total, dtype=torch.bool, device=y.device).triu_(self.prefix + 1)
        logits = self.query.flatten(1, 2) @ key.mT  # [groups, positions x repeat, keys]
        logits = logits.view(groups, len(y), -1, total).masked_fill_(future[:, None], float("-inf"))
        self.weights = logits.softmax(-1)  # [groups, positions, repeat, keys]
        self.out = (self.weights.flatten(1, 2) @ value).view_as(self.query)  # [groups, positions, repeat, head]

    @property
    def mixed(self) -> Tensor:
        """Input of the output projection, [positions, heads x head]."""
        return self.out.transpose(0, 1).flatten(1)

    def rotate(self, x: Tensor) -> Tensor:
        """Apply the rotary embedding to x, [positions, ..., head], at the last positions of the window."""
        low, high = self.sin[-len(x) :].chunk(2, dim=-1)  # [positions, head / 2] each
        return _turned(x, self.cos[-len(x) :], -low, high)

    def rotate_back(self, x: Tensor) -> Tensor:
        """Apply the transposed rotation to x, [positions, ..., head], at the first positions of the window."""
        low, high = self.sin[: len(x)].chunk(2, dim=-1)  # [positions, head / 2] each
        return _turned(x, self.cos[: len(x)], high, -low)


def _turned(x: Tensor, cos: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Compute ``[x1, x2] cos + [x2 first, x1 second]``, where x1 and x2 are the halves of each head.

    Shapes: x [positions, ..., head], cos [positions, head], first and second [positions, head / 2].
    """
    cos, first, second = (
        table.view(len(x), *(1,) * (x.ndim - 2), table.shape[-1]) for table in (cos, first, second)
    )  # [positions, 1, ..., head], and head / 2 for the last two
    out = x * cos  # [positions, ..., head]
    x1, x2 = x.chunk(2, dim=-1)  # [positions, ..., head / 2] each
    out1, out2 = out.chunk(2, dim=-1)  # views of out
    out1.addcmul_(x2, first)
    out2.addcmul_(x1, second)
    return out
