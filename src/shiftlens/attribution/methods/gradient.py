"""Gradient times embedding, the paper's estimate (section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from shiftlens.attribution.engine import Engine, Explained
from shiftlens.attribution.methods.method import Method


@dataclass(frozen=True)
class Gradient(Method):
    """First-order estimate of what the target loses without a token: ``<d f(y_m) / d E[x_n], E[x_n]>``."""

    name = "gradient"
    words = "gradient x embedding"
    shares = True

    def identity(self) -> dict[str, Any]:
        """Nothing: rows without any mark are those of the gradient."""
        return {}

    def explain(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        sources: Sequence[int],
        response: int,
        engine: Engine,
    ) -> Explained:
        """Run the engine, see :meth:`shiftlens.attribution.engine.Engine.explain`."""
        with torch.enable_grad():
            return engine.explain(model, input_ids, sources, response)
