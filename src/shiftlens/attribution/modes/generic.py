"""Computes tangents and cotangents for a model of any family, by automatic differentiation of the model's body.

Returns the same terms as :mod:`~shiftlens.attribution.llama.tangents` and
:mod:`~shiftlens.attribution.llama.cotangents`: Jacobian-vector products before a cut, vector-Jacobian products
after it, a chunk in one batch. In shape comments a group is a key-value head, and positions are those of a
window: from the first source up to the cut (tangents), or from the cut on (cotangents).
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
from shiftlens.support.libraries.transformers_parts import body_of


def tangents(
    model: PreTrainedModel,
    primal: Primal,
    sources: list[int],
    cut: int,
    *,
    hidden: bool = True,
    crossing: bool = False,
) -> tuple[Float[Tensor, "chunk ahead hidden"] | None, list[Crossing]]:
    """Carry a tangent along E[s] from every source position s up to a cut.

    Args:
        model: Causal language model with plain attention, in evaluation mode.
        primal: Primal values of the text, from the ordinary pass.
        sources: Sorted positions before the cut, one per tangent.
        cut: Position where the tangents end.
        hidden: Whether to return the tangents of h, the input of the output layer.
        crossing: Whether to return the tangents of keys and values.

    Returns:
        The same as :func:`~shiftlens.attribution.llama.tangents.llama_tangents`, with one crossing for the chunk.
    """
    start = sources[0]
    window = primal.embeddings[None, start:cut]  # [1, positions, width]
    directions = window.new_zeros(len(sources), *window.shape)  # [chunk, 1, positions, width]
    for row, source in enumerate(sources):
        directions[row, 0, source - start] = primal.directions[source]

    def run(embeddings: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Run the body on the window, [1, positions, width]; return h and each layer's keys and values."""
        cache = _cache(_first(primal, start))
        out = _body(model, embeddings, cache)  # [positions, hidden]
        if not crossing:
            return out, [], []
        # For each layer: [groups, positions, head].
        keys, values = zip(
            *((layer.keys[0, :, start:], layer.values[0, :, start:]) for layer in cache.layers), strict=True
        )
        return out, list(keys), list(values)

    def along(direction: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Differentiate ``run`` along a direction, [1, positions, width]; results have the shapes of run's."""
        tangent: tuple[Tensor, list[Tensor], list[Tensor]] = torch.func.jvp(run, (window,), (direction,))[1]
        return tangent

    # out: [chunk, positions, hidden]; keys and values, for each layer: [chunk, groups, positions, head]
    out, keys, values = torch.func.vmap(along)(directions)
    # For each layer: [chunk, positions x (keys and values)].
    moved = [joined(k.transpose(0, 1), v.permute(1, 2, 0, 3)) for k, v in zip(keys, values, strict=True)]
    return (out if hidden else None), ([Crossing(start, moved)] if crossing else [])


def cotangents(
    model: PreTrainedModel, primal: Primal, cut: int, columns: list[int], crossings: Sequence[Crossing] = ()
) -> tuple[Float[Tensor, "chunk behind width"], Float[Tensor, "sources chunk"]]:
    """Compute gradients of the embeddings from a cut on, and derivatives along the tangents that cross it.

    The backward pass scales each token's gradient to a largest entry of 1, so half precision does not underflow.

    Args:
        model: Causal language model with plain attention, in evaluation mode.
        primal: Primal values of the text, from the ordinary pass.
        cut: First position whose gradient is returned.
        columns: Sorted indices of response tokens, counted from 0; each predicted at the cut or later.
        crossings: Tangents of the sources before the cut, from :func:`tangents`.

    Returns:
        The same as :func:`~shiftlens.attribution.llama.cotangents.llama_cotangents`, at least float32.
    """
    length, response = len(primal.embeddings), len(primal.gradient)
    offsets = [length - response + column - cut for column in columns]  # predicting positions, from the cut
    with torch.enable_grad():
        # Keys and values before the cut, for each layer: [1, groups, cut, head].
        prefix = [(k.detach().requires_grad_(), v.detach().requires_grad_()) for k, v in _first(primal, cut)]
        # [1, positions, width], up to the last predicting position
        window = primal.embeddings[None, cut : cut + offsets[-1] + 1].detach().requires_grad_()
        out = _body(model, window, _cache(prefix))  # [positions, hidden]
        gradient = primal.gradient[columns].to(out.device)  # [chunk, hidden]
        scale = gradient.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)  # [chunk, 1]
        entering = out.new_zeros(len(columns), *out.shape)  # [chunk, positions, hidden]
        entering[range(len(columns)), offsets] = (gradient / scale).to(out)
        leaves = [window, *(each for layer in prefix for each in layer)] if crossings else [window]
        # at_window: [chunk, 1, positions, width]; at_prefix: per layer keys, values, [chunk, 1, groups, cut, head]
        at_window, *at_prefix = torch.autograd.grad(
            out, leaves, entering, is_grads_batched=True, materialize_grads=True
        )
    scale = scale.to(torch.promote_types(scale.dtype, torch.float32))
    gradients = scale.new_zeros(len(columns), length - cut, at_window.shape[-1])  # [chunk, length - cut, width]
    gradients[:, : at_window.shape[2]] = at_window[:, 0].to(scale) * scale[..., None]
    # [sources, chunk]
    sums = scale.new_zeros(sum(len(crossing.moved[0]) for crossing in crossings), len(columns))
    for i in range(len(prefix) if crossings else 0):
        # [chunk, cut x (keys and values)]; the tangents of a crossing, [sources, ...], cover the last entries
        at_cut = joined(at_prefix[2 * i][:, 0].transpose(0, 1), at_prefix[2 * i + 1][:, 0].permute(1, 2, 0, 3))
        sums += torch.cat([c.moved[i].to(sums) @ at_cut[:, -c.moved[i].shape[1] :].to(sums).T for c in crossings])
    return gradients, sums * scale.T


def check_body(model: PreTrainedModel, primal: Primal) -> None:
    """Refuse a model that computes more between the embeddings and the output layer than its body does.

    Some families use the ids again in later layers (Gemma 3n) or transform the body's output (BERT's decoder).

    Args:
        model: Causal language model with plain attention.
        primal: Primal values of the text; their hidden states are compared with those of the body.

    Raises:
        ValueError: The hidden states differ; the message names a mode that supports the model.
    """
    if model in _WHOLE:
        return
    # out: [length, hidden]; wanted: [response, hidden]
    out, wanted = _body(model, primal.embeddings[None], DynamicCache()), primal.hidden
    tolerance = max(1e-3, 16 * torch.finfo(out.dtype).eps)
    if out.shape[-1] != wanted.shape[-1] or (out[-len(wanted) :] - wanted).abs().max() > tolerance * wanted.std():
        raise ValueError(
            f"{type(model).__name__} computes more between its embeddings and its output layer than its body does "
            "of the embeddings alone; use saliency.mode=reverse"
        )
    _WHOLE.add(model)


_WHOLE: weakref.WeakSet[PreTrainedModel] = weakref.WeakSet()
"""Models that passed :func:`check_body`."""


def _first(primal: Primal, length: int) -> list[tuple[Tensor, Tensor]]:
    """List each layer's keys and values at the first positions, [1, groups, length, head]; empty for length 0."""
    pairs = zip(primal.keys, primal.values, strict=True)
    return [(key[:, :, :length], value[:, :, :length]) for key, value in pairs] if length else []


def _cache(pairs: Sequence[tuple[Tensor, Tensor]]) -> DynamicCache:
    """Make a cache that holds each layer's keys and values."""
    cache = DynamicCache()  # concatenates later keys to a copy, so the given tensors are not changed
    for index, (key, value) in enumerate(pairs):
        cache.update(key, value, index)
    return cache


def _body(model: PreTrainedModel, embeddings: Tensor, cache: DynamicCache) -> Float[Tensor, "position hidden"]:
    """Run the body, the model without its output layer, on embeddings, [1, positions, width]."""
    out: Tensor = body_of(model)(
        inputs_embeds=embeddings, past_key_values=cache, use_cache=True
    ).last_hidden_state[0]
    return out
