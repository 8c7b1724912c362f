"""Runs the ordinary pass over a text and keeps the values that derivatives need (primal values)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from shiftlens.attribution.targets import Reading, at_logits
from shiftlens.attribution.variant import PLAIN, Variant
from shiftlens.hooks import EmbeddingTap, HeadTap, StreamTap
from shiftlens.support.libraries.transformers_parts import cached


@dataclass(frozen=True)
class Primal:
    """Values from one ordinary pass over all ids but the last; length is the number of these ids.

    Args:
        embeddings: [length, width] input embeddings E.
        gradient: [response, hidden] d f_m / d h at the position that predicts y_m, where h is the input of the
            output layer.
        hidden: [response, hidden] h at the same positions.
        reading: Log probabilities and ranks of the response tokens.
        keys: For each layer, [1, groups, length, head] keys as cached, after any rotation; a group is a key-value
            head.
        values: For each layer, [1, groups, length, head] values.
        streams: For each requested module, [length, width] its input.
        variant: What is carried through the model.
    """

    embeddings: Float[Tensor, "length width"]
    gradient: Float[Tensor, "response hidden"]
    hidden: Float[Tensor, "response hidden"]
    reading: Reading
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    streams: tuple[Tensor, ...] = ()
    variant: Variant = PLAIN

    @property
    def directions(self) -> Float[Tensor, "length width"]:
        """[length, width] direction along which each position counts as a source."""
        return self.variant.direction(self.embeddings)


def primal_pass(
    model: PreTrainedModel,
    ids: Int[Tensor, " total"],
    response: int,
    target: str,
    modules: Sequence[nn.Module] = (),
    variant: Variant = PLAIN,
) -> Primal:
    """Run one pass over all ids but the last, and one backward pass through the output layer alone.

    Args:
        model: Causal language model with plain attention.
        ids: [total] ids, on the model's device.
        response: Number of ids at the end that are the response.
        target: Function f, see :func:`shiftlens.attribution.targets.at_logits`.
        modules: Modules whose input to keep.
        variant: What is carried through the model.
    """
    # Made without the model's configuration, the cache keeps every key of sliding layers; masks apply the window.
    cache = DynamicCache()
    with torch.no_grad(), EmbeddingTap(model) as embedding, HeadTap(model) as head, StreamTap(modules) as taps:
        logits = model(ids[None, :-1], past_key_values=cache, use_cache=True, logits_to_keep=response).logits[0]
        # logits, at_output: [response, vocab]
        at_output, reading = at_logits(logits, ids[-response:].to(logits.device), target, variant.foils)
        assert embedding.embedding is not None
        assert head.leaf is not None and head.body is not None
        # The output layer acts on each position alone, so one backward pass gives d f_m / d h for every m.
        (gradient,) = torch.autograd.grad(logits, head.leaf, at_output.to(logits.dtype))  # [1, response, hidden]
    # For each layer: [1, groups, length, head].
    keys, values = zip(*cached(cache), strict=True)
    streams = tuple(stream[0] for stream in taps.streams)  # [length, width] each
    hidden = head.body[0].detach()  # [response, hidden]
    return Primal(embedding.embedding[0].detach(), gradient[0], hidden, reading, keys, values, streams, variant)
