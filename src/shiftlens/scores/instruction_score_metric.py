"""Provides the instruction score as a torchmetrics metric, for Lightning modules and several ranks."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torchmetrics import Metric

from shiftlens.scores.importance import check_levels, density, instruction_score, score


class InstructionScore(Metric):
    """Mean instruction score over samples, computed with :mod:`shiftlens.scores.importance`.

    Args:
        L: Number of levels of the sparse score.
        b: Largest level that is set to 0.
        p: Order of the norm in the density.
        kwargs: Options of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If ``L``, ``b`` or ``p`` is out of range.

    Example:
        >>> metric = InstructionScore(L=10, b=0, p=4)
        >>> metric.update(torch.tensor([[1.0, 2.0], [0.5, 0.0]]), torch.tensor([True, False]))
        >>> round(metric.compute().item(), 4)
        0.6309
    """

    higher_is_better = None
    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, L: int = 10, b: int = 0, p: float | int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_levels(L, b, p)
        self.L, self.b, self.p = L, b, p
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, importance: Shaped[Tensor, "sources response"], mask: Bool[Tensor, " prompt"]) -> None:
        """Add one sample.

        Args:
            importance: [sources, response] raw importance; the first sources are the tokens of the prompt.
            mask: [prompt] which tokens of the prompt are instruction tokens.
        """
        levels = score(importance.detach().float().cpu().numpy(), self.L, self.b)
        prompt_density = density(levels, self.p)[: len(mask)]
        self.total += instruction_score(prompt_density, mask.cpu().numpy())
        self.count += 1

    def compute(self) -> Float[Tensor, ""]:
        """Return the mean over all samples added; NaN if there are none."""
        return self.total / self.count
