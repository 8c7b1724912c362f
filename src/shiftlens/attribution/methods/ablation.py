"""Exact removal: what a response loses if the embedding of a prompt token is replaced.

Gradient x embedding is the first-order estimate of this difference (paper, section 3.1). Each prompt token costs
one forward pass over the whole text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from shiftlens.attribution.engine import Engine, Explained
from shiftlens.attribution.methods.method import Method
from shiftlens.attribution.plan.memory import MOST, Need, budget_bytes, halving
from shiftlens.attribution.targets import Reading, at_logits, stored
from shiftlens.errors import ConfigError
from shiftlens.hooks import HeadTap
from shiftlens.support.marked import numeric

REPLACEMENTS = ("zero", "mean")
"""What takes the place of an embedding: nothing, or the mean over the vocabulary's input embeddings."""


@dataclass(frozen=True)
class Ablation(Method):
    """Exact difference that replacing one embedding at a time makes, see :func:`ablate`.

    Args:
        replaced_by: What takes the place of the embedding, one of :data:`REPLACEMENTS`.

    Raises:
        ConfigError: The replacement is unknown.
    """

    name = "ablation"
    form = "loss"
    exact = True
    jointly = True
    replaced_by: str = numeric("zero")

    def __post_init__(self) -> None:
        if self.replaced_by not in REPLACEMENTS:
            known = ", ".join(REPLACEMENTS)
            raise ConfigError(f"saliency.method.replaced_by={self.replaced_by}: expected one of {known}")

    @property
    def words(self) -> str:
        """What a finding calls the method."""
        return f"exact removal ({'zero' if self.replaced_by == 'zero' else 'mean'} embedding)"

    def explain(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        sources: Sequence[int],
        response: int,
        engine: Engine,
    ) -> Explained:
        """Replace each source's embedding in turn, see :func:`ablate`."""
        return ablate(model, input_ids, [[source] for source in sources], response, self.replaced_by, engine)

    def explain_units(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        units: Sequence[Sequence[int]],
        response: int,
        engine: Engine,
    ) -> Explained:
        """Replace all embeddings of each unit at once, see :func:`ablate`."""
        return ablate(model, input_ids, units, response, self.replaced_by, engine)


def ablate(
    model: PreTrainedModel,
    input_ids: Sequence[int],
    units: Sequence[Sequence[int]],
    response: int,
    replaced_by: str,
    engine: Engine,
) -> Explained:
    """Ablation importance: ``f(y_m | Z_m) - f(y_m | Z_m with the embedding of s_n replaced)``, exactly.

    For the target probability f is log p, from which the difference of p follows. For the logit difference the
    other token is held fixed.

    Args:
        model: causal language model of any family.
        input_ids: [total] ids fed; the last ``response`` of them are the response.
        units: [units] positions whose embeddings are replaced together, one unit at a time; all before the last
            token.
        response: number of response tokens M.
        replaced_by: one of :data:`REPLACEMENTS`.
        engine: its target, chunk and memory budget count; the chunk is the number of texts in a batch.

    Returns:
        [units, M] differences, and how the model reads the response.

    Raises:
        ValueError: the replacement is unknown.
        ShiftLensError: not even one text fits in memory.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> ablate(LlamaForCausalLM(config), [1, 2, 3, 4], [[0], [1]], 2, "zero", Engine()).values.shape
        torch.Size([2, 2])
    """
    if replaced_by not in REPLACEMENTS:
        raise ValueError(f"replaced_by={replaced_by}: expected one of {', '.join(REPLACEMENTS)}")
    if response == 0:
        empty = Reading(torch.zeros(0), torch.zeros(0, dtype=torch.long))
        return Explained(torch.zeros(len(units), 0), empty, "ablation")
    target = stored(engine.target)
    layer = model.get_input_embeddings()
    ids, wanted = torch.tensor(input_ids[:-1]), torch.tensor(input_ids[-response:])
    logits = _logits(model, ids[None], response)[0]
    wanted = wanted.to(logits.device)
    direction, reading = at_logits(logits, wanted, target, engine.contrast(response))
    vector = _mean_embedding(layer) if replaced_by == "mean" else torch.zeros(())

    def f(logits: Float[Tensor, "response vocab"]) -> Float[Tensor, " response"]:
        if target == "logit_difference":
            return (direction * logits).sum(-1)
        return at_logits(logits, wanted, target)[1].log_probability

    def run(size: int) -> Float[Tensor, "units response"]:
        ablated = []
        for start in range(0, len(units), size):
            some = units[start : start + size]
            with _replaced(layer, some, vector):
                ablated += [f(one) for one in _logits(model, ids.expand(len(some), -1), response)]
        return torch.stack(ablated)

    before = f(logits)
    after = halving(run, engine.chunk or _chunk(model, len(ids), response, engine)) if len(units) else before[:0]
    difference = before - after.reshape(-1, response)
    return Explained(difference.cpu(), Reading(*(values.cpu() for values in reading)), "ablation")


def _logits(
    model: PreTrainedModel, ids: Int[Tensor, "batch fed"], response: int
) -> Float[Tensor, "batch response vocab"]:
    """Logits that predict the response, at least float32 from a linear head."""
    with torch.no_grad(), HeadTap(model):
        found: Tensor = model(ids.to(model.device), use_cache=False, logits_to_keep=response).logits
    return found.detach()


@contextmanager
def _replaced(layer: nn.Module, units: Sequence[Sequence[int]], vector: Tensor) -> Iterator[None]:
    """Replace some embeddings of each text of a batch: those at ``units[i]`` of text i."""

    def replace(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output = output.clone()
        for text, places in enumerate(units):
            output[text, list(places)] = vector.to(output)
        return output

    handle = layer.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def _mean_embedding(layer: nn.Module) -> Float[Tensor, " width"]:
    # Through the layer, not from its weight: some families scale what they look up.
    weight = layer.weight
    assert isinstance(weight, Tensor)
    parts = torch.arange(len(weight), device=weight.device).split(4096)
    total = sum(layer(part).sum(0, dtype=torch.promote_types(weight.dtype, torch.float32)) for part in parts)
    assert isinstance(total, Tensor)
    return total / len(weight)


def _chunk(model: PreTrainedModel, fed: int, response: int, engine: Engine) -> int:
    """Texts at once: one layer's values and the response's logits of each, in round numbers."""
    config, item = model.config.get_text_config(), model.dtype.itemsize
    layer = fed * item * (10 * config.hidden_size + 4 * (getattr(config, "intermediate_size", None) or 0))
    maps = config.num_attention_heads * fed * fed * (item + 4)
    logits = response * config.vocab_size * max(item, 4)
    # Reading one text's response takes several arrays of the logits' size, whatever the batch.
    needed = Need(6 * logits, layer + maps + logits)
    return needed.chunk(budget_bytes(engine.memory_budget, model), MOST.get(model.device.type, MOST["cpu"]))
