"""Importance drawn at random, by the ids fed: the zero line of comparisons of methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from shiftlens.attribution import Engine, Explained
from shiftlens.attribution.methods import Gradient, Method
from shiftlens.support.marked import numeric


@dataclass(frozen=True)
class RandomImportance(Method):
    name = "random"
    words = "random importance"
    seed: int = numeric(0)

    def explain(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        sources: Sequence[int],
        response: int,
        engine: Engine,
    ) -> Explained:
        read = Gradient().explain(model, input_ids, [], response, engine)
        generator = torch.Generator().manual_seed(self.seed + sum(input_ids))
        return Explained(torch.randn(len(sources), response, generator=generator), read.reading, "random")
