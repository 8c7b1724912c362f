"""Explains a response while the weights of the upper layers are random, as a check of an attribution method.

Source: Adebayo et al. 2018, "Sanity Checks for Saliency Maps" (cascading randomisation).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shiftlens.attribution import Engine, Explained
from shiftlens.attribution.methods import Method
from shiftlens.errors import ShiftLensError
from shiftlens.support.marked import numeric


@dataclass(frozen=True)
class Randomised(Method):
    """Another method, applied to the model while the weights of its upper layers are random.

    Its rows never mix with those of the model itself: its name and settings are part of their keys.

    Args:
        of: The method.
        share: Share of the layers, from the top, whose weights are random.
        seed: Random seed for the weights.
    """

    name = "randomised"
    of: Method = numeric()
    share: float = numeric(1.0)
    seed: int = numeric(0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "form", self.of.form)

    @property
    def words(self) -> str:
        """What a finding calls the method."""
        return f"{self.of.words} with {self.share:.0%} of the layers random"

    def identity(self) -> dict[str, Any]:
        """Name and settings of the method, the share and the seed."""
        inner = {"name": self.of.name, "settings": self.of.identity()}
        return {"of": inner, "share": self.share, "seed": self.seed}

    def explain(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        sources: Sequence[int],
        response: int,
        engine: Engine,
    ) -> Explained:
        """Explain the response by the method while the layers are random."""
        with random_layers(model, self.share, self.seed):
            return self.of.explain(model, input_ids, sources, response, engine)


@contextmanager
def random_layers(model: PreTrainedModel, share: float, seed: int) -> Iterator[None]:
    """Redraw the weights of the upper layers for a while; afterwards the model has its own tensors back.

    Every parameter is drawn from a normal distribution with the parameter's own mean and standard deviation, so
    that the gains of norms stay near their size. A larger share redraws the layers of a smaller one in the same
    way.

    Args:
        model: Causal language model.
        share: Share of the layers, from the top; rounded up to whole layers.
        seed: Random seed.

    Raises:
        ShiftLensError: The weights of the layers are quantized.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=2, n_head=2))
        >>> weights = [layer.mlp.c_fc.weight.clone() for layer in model.transformer.h]
        >>> with random_layers(model, 0.5, seed=0):
        ...     [bool((l.mlp.c_fc.weight == w).all()) for l, w in zip(model.transformer.h, weights)]
        [True, False]
        >>> [bool((l.mlp.c_fc.weight == w).all()) for l, w in zip(model.transformer.h, weights)]
        [True, True]
    """
    layers = _layers(model)
    upper = layers[len(layers) - math.ceil(share * len(layers)) :]
    generator = torch.Generator().manual_seed(seed)
    own: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for layer in reversed(upper):
            for parameter in layer.parameters():
                own.append((parameter, parameter.data))
                parameter.data = _redrawn(parameter.data, generator)
        yield
    finally:
        for parameter, data in reversed(
            own
        ):  # a parameter of several layers has its own tensor at its first place
            parameter.data = data


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the transformer layers: the first list of as many modules as the configuration has layers."""
    count = model.config.get_text_config().num_hidden_layers
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
    return list(next(lists))


def _redrawn(weight: Tensor, generator: torch.Generator) -> Tensor:
    if not weight.is_floating_point():
        raise ShiftLensError(
            "quantized layers cannot be randomised; use callbacks.faithfulness.sanity=0 or an unquantized model"
        )
    wide = weight.float()
    noise = torch.randn(weight.shape, generator=generator)  # on the CPU, so that every device has the same numbers
    return (wide.mean() + wide.std(correction=0) * noise.to(weight.device)).to(weight.dtype)
