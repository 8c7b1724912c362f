"""Random importance: what a method has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from transformers import PreTrainedModel

from shiftlens.attribution.engine import Engine, Explained
from shiftlens.attribution.methods.method import OnePass
from shiftlens.support.marked import numbers_of, numeric
from shiftlens.support.setting_rules import SEED, Rule, refuse, setting_problems


@dataclass(frozen=True)
class RandomOrder(OnePass):
    """Importance drawn uniformly from [0, 1); the same for the same ids and seed.

    Args:
        seed: Random seed.

    Raises:
        ConfigError: The seed is not a whole number from 0 to 2^32 - 1.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> model = LlamaForCausalLM(config)
        >>> one, other = (RandomOrder(1).explain(model, [1, 2, 3, 4], [0, 1], 2, Engine()) for _ in range(2))
        >>> torch.equal(one.values, other.values)
        True
    """

    name = "random"
    rules: ClassVar[Mapping[str, Rule]] = {"seed": SEED}
    words = "random order"
    shares = True
    seed: int = numeric(0)

    def __post_init__(self) -> None:
        refuse(setting_problems(numbers_of(self), self.rules, f"saliency.{self.name}."))

    def explain(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        sources: Sequence[int],
        response: int,
        engine: Engine,
    ) -> Explained:
        """Draw the values; the model only reads the response, in one forward pass."""
        read = engine.explain(model, input_ids, (), response)
        # A draw for each position, so that a source's numbers do not depend on which others are asked for.
        noise = np.random.default_rng([self.seed, *input_ids]).random((len(input_ids), response))
        return replace(read, values=torch.from_numpy(noise[list(sources)]))
