"""Attention weights as importance: how much each response token's prediction attends to each source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.engine import Engine, Explained
from shiftlens.attribution.methods.method import OnePass
from shiftlens.attribution.modes.plain_attention import check_plain, plain_attention, watched
from shiftlens.attribution.modes.primal import primal_pass
from shiftlens.attribution.targets import Reading, check_places, stored
from shiftlens.errors import ShiftLensError
from shiftlens.support.marked import numbers_of, numeric
from shiftlens.support.setting_rules import Choice, Rule, refuse, setting_problems

HOWS = ("mean", "rollout")
"""How the weights of the layers are combined."""


@dataclass(frozen=True)
class AttentionWeights(OnePass):
    """Attention from the position that predicts a response token to the sources; no derivative is taken.

    Args:
        how: ``mean`` over all heads and layers; or ``rollout``, the product over the layers of
            ``0.5 A + 0.5 I``, with A the mean over the heads of a layer and I for the residual connection.

    Raises:
        ConfigError: ``how`` is unknown.

    Source:
        Abnar, Zuidema, "Quantifying Attention Flow in Transformers" (ACL 2020, arXiv 2005.00928) for rollout.
        Jain, Wallace, "Attention is not Explanation" (NAACL 2019, arXiv 1902.10186) for why neither may be one.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> method = AttentionWeights()
        >>> weights = method.explain(LlamaForCausalLM(config), [1, 2, 3, 4], [0, 1], 2, Engine()).values
        >>> weights[:, 0].sum()  # the first response token is predicted at position 1
        tensor(1.)
    """

    name = "attention"
    rules: ClassVar[Mapping[str, Rule]] = {"how": Choice(HOWS)}
    shares = True
    how: str = numeric("mean")

    def __post_init__(self) -> None:
        refuse(setting_problems(numbers_of(self), self.rules, f"saliency.{self.name}."))

    @property
    def words(self) -> str:
        """What a finding calls the method."""
        return "mean attention" if self.how == "mean" else "attention rollout"

    def explain(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        sources: Sequence[int],
        response: int,
        engine: Engine,
    ) -> Explained:
        """Read the weights in one forward pass.

        Raises:
            ValueError: A source or ``response`` is out of range.
            ShiftLensError: The model is not itself in plain attention, or has no attention weights.
        """
        if response == 0:
            return engine.explain(model, input_ids, sources, 0)
        check_places(len(input_ids), sources, response, 1)
        check_plain(model, len(input_ids))
        layers: list[None] = []
        combined = torch.zeros(())

        def add(weights: Float[Tensor, "heads positions positions"]) -> None:
            """Add a layer to the mean, or multiply the rollout by it."""
            nonlocal combined
            layer = weights.mean(0, dtype=torch.promote_types(weights.dtype, torch.float32))
            if self.how == "mean":
                combined = combined.to(layer.device) + layer[-response:]  # [response, positions]
            else:
                layer = (layer + torch.eye(len(layer)).to(layer)) / 2  # [positions, positions]
                combined = layer @ combined.to(layer.device) if layers else layer
            layers.append(None)

        with torch.no_grad(), plain_attention(model), watched(add):
            ids = torch.tensor(input_ids).to(model.device)
            reading = primal_pass(model, ids, response, stored(engine.target)).reading
        if not layers:
            raise ShiftLensError(f"{type(model).__name__} has no attention weights; use another saliency.method")
        rows = combined[-response:] / (len(layers) if self.how == "mean" else 1)  # [response, positions]
        return Explained(rows[:, list(sources)].T.cpu(), Reading(*(each.cpu() for each in reading)), self.name)
