"""The one ordinary pass over a text that every derivative of it builds on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from shiftlens.attribution.targets import Reading, at_logits
from shiftlens.hooks import EmbeddingTap, HeadTap, StreamTap


@dataclass(frozen=True)
class Primal:
    """What one ordinary pass over the ids (all but the last) leaves for the derivatives.

    Args:
        embeddings: [length, width] input embeddings E.
        gradient: [response, hidden] d f_m / d h at the position that predicts y_m, h being what
            enters the output layer.
        hidden: [response, hidden] h there.
        reading: how the response is read.
        keys: per layer [1, heads, length, head] keys as cached, after any rotation.
        values: per layer [1, heads, length, head] values.
        streams: [length, width] what entered each of the modules that were asked for.
    """

    embeddings: Float[Tensor, "length width"]
    gradient: Float[Tensor, "response hidden"]
    hidden: Float[Tensor, "response hidden"]
    reading: Reading
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    streams: tuple[Tensor, ...] = ()


def primal_pass(
    model: PreTrainedModel,
    ids: Int[Tensor, " total"],
    response: int,
    target: str,
    modules: Sequence[nn.Module] = (),
) -> Primal:
    """One pass over all ids but the last, and one backward pass through the output layer alone.

    Args:
        model: a causal language model with plain attention.
        ids: [total] ids, on the model's device.
        response: number of ids at the end that are the response.
        target: f, see :func:`shiftlens.attribution.targets.at_logits`.
        modules: those whose input is kept.
    """
    # Made without the configuration, so that sliding layers keep every key; masks still apply the window.
    cache = DynamicCache()
    with torch.no_grad(), EmbeddingTap(model) as embedding, HeadTap(model) as head, StreamTap(modules) as taps:
        logits = model(ids[None, :-1], past_key_values=cache, use_cache=True, logits_to_keep=response).logits[0]
        at_output, reading = at_logits(logits, ids[-response:].to(logits.device), target)
        assert embedding.embedding is not None
        assert head.leaf is not None and head.body is not None
        # The head acts on each position alone, so one backward pass gives every g_m.
        (gradient,) = torch.autograd.grad(logits, head.leaf, at_output.to(logits.dtype))
    keys, values = zip(*((layer.keys, layer.values) for layer in cache.layers), strict=True)
    streams = tuple(stream[0] for stream in taps.streams)
    hidden = head.body[0].detach()
    return Primal(embedding.embedding[0].detach(), gradient[0], hidden, reading, keys, values, streams)
