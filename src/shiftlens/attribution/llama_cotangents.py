"""The cotangents of :mod:`shiftlens.attribution.reverse`, written out for layers of the LLaMA kind.

Per layer (see :mod:`shiftlens.attribution.llama_layer`), what arrives at an output goes back to its inputs:

    dx = u - x^ <x^, u> / width,  u = w r dy
    dS = P * (dO V^T - <dO, O>),  dQ = dS K,  dK = dS^T Q,  dV = P^T dO
    dg = a'(g) u dz,  du = a(g) dz

A cotangent enters where its response token is predicted and moves towards the start only: rows behind that
place, and rows before the first source, are not carried.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from shiftlens.attribution.llama_layer import BLOCK, PART, Attention, Norm, gates, rotations
from shiftlens.attribution.primal import Primal


def llama_cotangents(
    model: PreTrainedModel, primal: Primal, start: int, columns: list[int]
) -> Float[Tensor, "chunk after width"]:
    """Gradients of the embeddings from position ``start`` on, for some response tokens; exact.

    Memory: chunk x (length - start) x width for the cotangents, and one layer's primal values, which are
    computed again from what entered its norms.

    Args:
        model: a model that :func:`~shiftlens.attribution.llama_layer.takes` accepts, in evaluation mode.
        primal: the ordinary pass, with what entered each of :func:`entrances`.
        start: first position wanted.
        columns: sorted response tokens, from 0; each predicted at ``start`` or later.

    Returns:
        [chunk, length - start, width] d f_m / d E; zero behind the place that predicts y_m.
    """
    body = getattr(model, model.base_model_prefix)
    length, response = len(primal.embeddings), len(primal.gradient)
    cos, sin = rotations(body, primal.embeddings[start:], start)
    *streams, last = (stream[start:] for stream in primal.streams)
    places = [length - response + column - start for column in columns]
    # Up to the last attention a cotangent lies at one place alone.
    tips = Norm(body.norm, last[places]).cotangent(primal.gradient[columns].to(last)[:, None])
    _through_mlp(body.layers[-1], streams[-1][places], [tips])
    parts = []
    for i in range(0, len(columns), PART):
        some = places[i : i + PART]
        part = last.new_zeros(some[-1] + 1, len(some), last.shape[-1])
        part[some, range(len(some))] = tips[i : i + PART, 0]
        parts.append(part)
    layers = list(enumerate(zip(body.layers, primal.keys, primal.values, strict=True)))
    for i, (layer, key, value) in reversed(layers):
        if i < len(layers) - 1:
            _through_mlp(layer, streams[2 * i + 1], parts)
        norm = Norm(layer.input_layernorm, streams[2 * i])
        maps = Attention(layer.self_attn, norm.y, key[0], value[0], cos, sin)
        for part in parts:
            part += norm.cotangent(_back(maps, part))
    out = last.new_zeros(len(columns), length - start, last.shape[-1])
    for i, part in enumerate(parts):
        out[i * PART : i * PART + part.shape[1], : len(part)] = part.transpose(0, 1)
    return out


def entrances(model: PreTrainedModel) -> list[nn.Module]:
    """The modules whose inputs :func:`llama_cotangents` needs: per layer, attention and MLP norm; the last norm.

    Args:
        model: a model that :func:`~shiftlens.attribution.llama_layer.takes` accepts.
    """
    body = getattr(model, model.base_model_prefix)
    norms = [norm for layer in body.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    return [*norms, body.norm]


def _through_mlp(layer: Any, x: Tensor, parts: list[Tensor]) -> None:
    """Moves `parts` back through the MLP and its norm, where x entered, in place."""
    mlp, norm = layer.mlp, Norm(layer.post_attention_layernorm, x)
    primal = gates(mlp, norm.y)
    active, slope = primal.active[:, None], primal.slope[:, None]
    for part in parts:
        rows = len(part)
        arrived = part.view(-1, part.shape[-1]) @ mlp.down_proj.weight
        arrived = arrived.view(rows, -1, arrived.shape[-1])
        moved = (arrived * slope[:rows]).flatten(0, 1) @ mlp.gate_proj.weight
        moved.addmm_(arrived.mul_(active[:rows]).flatten(0, 1), mlp.up_proj.weight)
        part += norm.cotangent(moved.view_as(part))


def _back(maps: Attention, part: Tensor) -> Tensor:
    """Cotangents of what enters the attention, for those of what leaves it; both [position, cotangent, width]."""
    module, (length, count, width) = maps.module, part.shape
    groups, _, head = maps.key.shape
    before = maps.prefix  # keys whose cotangents nobody wants
    arrived = part.view(-1, width) @ module.o_proj.weight
    # Layouts that make each product below one matrix product per group.
    arrived = arrived.view(length, count, groups, -1, head).permute(2, 0, 3, 1, 4).contiguous()  # g, i, r, c, h
    repeat = arrived.shape[2]
    dq = torch.empty_like(arrived)
    dk = arrived.new_zeros(groups, count * length, head)  # group, cotangent x position, head
    dv = arrived.new_zeros(groups, length, count * head)  # group, position, cotangent x head
    block = BLOCK.get(part.device.type, BLOCK["cuda"])
    for low in range(0, length, block):
        high = min(low + block, length)
        seen = before + high
        d_out = arrived[:, low:high].flatten(1, 3)  # group, i x r x c, head
        weights = maps.weights[:, low:high, :, :seen].flatten(1, 2)  # group, i x r, j
        out, query = maps.out[:, low:high].flatten(1, 2), maps.query[:, low:high].flatten(1, 2)
        # <dO, O> is the sum of P * dP over the keys.
        along = (d_out.view(groups, -1, count, head) @ out[..., None]).view(groups, -1, count, 1)
        ds = (d_out @ maps.value[:, :seen].mT).view(groups, -1, count, seen)
        ds.sub_(along).mul_(weights[:, :, None])
        dq[:, low:high] = (ds.view(groups, -1, seen) @ maps.key[:, :seen]).view(groups, -1, repeat, count, head)
        moved = ds[..., before:].reshape(groups, -1, count * high).mT @ query
        dk.view(groups, count, length, head)[:, :, :high] += moved.view(groups, count, high, head)
        dv[:, :high] += weights[..., before:].mT @ d_out.view(groups, -1, count * head)
    dq = maps.rotate_back(dq.permute(1, 3, 0, 2, 4)).mul_(module.scaling)  # position, cotangent, g, r, h
    dk = maps.rotate_back(dk.view(groups, count, length, 1, head).permute(2, 1, 0, 3, 4))
    if maps.q_norm is not None and maps.k_norm is not None:
        dq, dk = maps.q_norm.cotangent(dq.contiguous()), maps.k_norm.cotangent(dk.contiguous())
    dv = dv.view(groups, length, count, head).permute(1, 2, 0, 3)
    back = dq.reshape(length * count, -1) @ module.q_proj.weight
    back.addmm_(dk.reshape(length * count, -1), module.k_proj.weight)
    back.addmm_(dv.reshape(length * count, -1), module.v_proj.weight)
    return back.view_as(part)
