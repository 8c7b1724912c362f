"""Tangents and cotangents of a model of any family, by differentiating its body as it is.

The same terms as :mod:`~shiftlens.attribution.llama.tangents` and :mod:`~shiftlens.attribution.llama.cotangents`:
ahead of a cut Jacobian-vector products, behind it vector-Jacobian products, a chunk in one batch.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from shiftlens.attribution.llama.layer import joined
from shiftlens.attribution.llama.tangents import Crossing
from shiftlens.attribution.modes.primal import Primal


def tangents(
    model: PreTrainedModel,
    primal: Primal,
    sources: list[int],
    cut: int,
    *,
    hidden: bool = True,
    crossing: bool = False,
) -> tuple[Float[Tensor, "chunk ahead hidden"] | None, list[Crossing]]:
    """Tangents along E[s] at position s, for every source, from sources[0] up to a cut.

    Args:
        model: a causal language model in plain attention, in evaluation mode.
        primal: the ordinary pass.
        sources: sorted positions ahead of the cut, one per tangent.
        cut: where to end.
        hidden: whether the tangents of h, what enters the output layer, are wanted.
        crossing: whether those of keys and values are.

    Returns:
        As :func:`~shiftlens.attribution.llama.tangents.llama_tangents`, with one crossing for the chunk.
    """
    start = sources[0]
    window = primal.embeddings[None, start:cut]
    directions = window.new_zeros(len(sources), *window.shape)
    for row, source in enumerate(sources):
        directions[row, 0, source - start] = primal.embeddings[source]

    def run(embeddings: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        cache = _cache(_first(primal, start))
        out = _body(model, embeddings, cache)
        if not crossing:
            return out, [], []
        keys, values = zip(
            *((layer.keys[0, :, start:], layer.values[0, :, start:]) for layer in cache.layers), strict=True
        )
        return out, list(keys), list(values)

    def along(direction: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        moved: tuple[Tensor, list[Tensor], list[Tensor]] = torch.func.jvp(run, (window,), (direction,))[1]
        return moved

    out, keys, values = torch.func.vmap(along)(directions)  # keys: [chunk, group, position, head]
    moved = [joined(k.transpose(0, 1), v.permute(1, 2, 0, 3)) for k, v in zip(keys, values, strict=True)]
    return (out if hidden else None), ([Crossing(start, moved)] if crossing else [])


def cotangents(
    model: PreTrainedModel, primal: Primal, cut: int, columns: list[int], crossings: Sequence[Crossing] = ()
) -> tuple[Float[Tensor, "chunk behind width"], Float[Tensor, "sources chunk"]]:
    """Gradients of the embeddings from a cut on, for some response tokens, and what crosses the cut.

    Each token's gradient is scaled to a largest entry of 1 on its way, so that none underflows in half precision.

    Args:
        model: a causal language model in plain attention, in evaluation mode.
        primal: the ordinary pass.
        cut: first position whose gradient is wanted.
        columns: sorted response tokens, from 0; each predicted at the cut or behind it.
        crossings: tangents of the sources ahead of the cut, from :func:`tangents`.

    Returns:
        As :func:`~shiftlens.attribution.llama.cotangents.llama_cotangents`, at least float32.
    """
    length, response = len(primal.embeddings), len(primal.gradient)
    places = [length - response + column - cut for column in columns]
    with torch.enable_grad():
        ahead = [(k.detach().requires_grad_(), v.detach().requires_grad_()) for k, v in _first(primal, cut)]
        window = primal.embeddings[None, cut : cut + places[-1] + 1].detach().requires_grad_()
        out = _body(model, window, _cache(ahead))
        gradient = primal.gradient[columns].to(out.device)
        scale = gradient.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
        entering = out.new_zeros(len(columns), *out.shape)
        entering[range(len(columns)), places] = (gradient / scale).to(out)
        leaves = [window, *(each for layer in ahead for each in layer)] if crossings else [window]
        found, *rest = torch.autograd.grad(out, leaves, entering, is_grads_batched=True, materialize_grads=True)
    scale = scale.to(torch.promote_types(scale.dtype, torch.float32))
    gradients = scale.new_zeros(len(columns), length - cut, found.shape[-1])
    gradients[:, : found.shape[2]] = found[:, 0].to(scale) * scale[..., None]
    met = scale.new_zeros(sum(len(crossing.moved[0]) for crossing in crossings), len(columns))
    for i in range(len(ahead) if crossings else 0):
        moved = joined(rest[2 * i][:, 0].transpose(0, 1), rest[2 * i + 1][:, 0].permute(1, 2, 0, 3))
        met += torch.cat([c.moved[i].to(met) @ moved[:, -c.moved[i].shape[1] :].to(met).T for c in crossings])
    return gradients, met * scale.T


def check_body(model: PreTrainedModel, primal: Primal) -> None:
    """Refuse a model whose body, given the embeddings, is not all there is between them and the output layer.

    Some families read the ids once more further up (Gemma 3n), or change what the body returns (BERT's decoder).

    Args:
        model: a causal language model in plain attention.
        primal: the ordinary pass; its hidden states are held against the body's.

    Raises:
        ValueError: it is such a model; names the mode that takes it.
    """
    if model in _WHOLE:
        return
    out, wanted = _body(model, primal.embeddings[None], DynamicCache()), primal.hidden
    near = max(1e-3, 16 * torch.finfo(out.dtype).eps)
    if out.shape[-1] != wanted.shape[-1] or (out[-len(wanted) :] - wanted).abs().max() > near * wanted.std():
        raise ValueError(
            f"{type(model).__name__} computes more between its embeddings and its output layer than its body does "
            "of the embeddings alone; use saliency.mode=reverse"
        )
    _WHOLE.add(model)


_WHOLE: weakref.WeakSet[PreTrainedModel] = weakref.WeakSet()
"""Models that :func:`check_body` found right."""


def _first(primal: Primal, length: int) -> list[tuple[Tensor, Tensor]]:
    """The first keys and values of the ordinary pass, layer by layer."""
    pairs = zip(primal.keys, primal.values, strict=True)
    return [(key[:, :, :length], value[:, :, :length]) for key, value in pairs] if length else []


def _cache(pairs: Sequence[tuple[Tensor, Tensor]]) -> DynamicCache:
    cache = DynamicCache()  # joins what comes to a copy
    for index, (key, value) in enumerate(pairs):
        cache.update(key, value, index)
    return cache


def _body(model: PreTrainedModel, embeddings: Tensor, cache: DynamicCache) -> Float[Tensor, "position hidden"]:
    body = getattr(model, model.base_model_prefix)
    out: Tensor = body(inputs_embeds=embeddings, past_key_values=cache, use_cache=True).last_hidden_state[0]
    return out
