"""The cotangents of :mod:`shiftlens.attribution.modes.mixed`, written out for layers of the LLaMA kind.

Per layer (see :mod:`shiftlens.attribution.llama.layer`), what arrives at an output goes back to its inputs:

    dx = u - x^ <x^, u> / width,  u = w r dy
    dS = P * (dO V^T - <dO, O>),  dQ = dS K,  dK = dS^T Q,  dV = P^T dO
    dg = a'(g) u dz,  du = a(g) dz

A cotangent enters where its response token is predicted and moves towards the start only: rows behind that
place, and rows ahead of the cut, are not carried. What lies ahead of the cut acts on the rest through keys and
values alone, so there the cotangents of those meet the tangents of :mod:`shiftlens.attribution.llama.tangents`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from shiftlens.attribution.llama.layer import BLOCK, Attention, Norm, gates, joined, rotations
from shiftlens.attribution.llama.packing import Part, groups
from shiftlens.attribution.llama.tangents import Crossing
from shiftlens.attribution.modes.primal import Primal


def llama_cotangents(
    model: PreTrainedModel, primal: Primal, cut: int, columns: list[int], crossings: Sequence[Crossing] = ()
) -> tuple[Float[Tensor, "chunk behind width"], Float[Tensor, "sources chunk"]]:
    """Gradients of the embeddings from a cut on, for some response tokens, and what crosses the cut; exact.

    Memory: chunk x (length - cut) x width for the cotangents, and one layer's primal values, which are
    computed again from what entered its norms.

    Args:
        model: a model that :func:`~shiftlens.attribution.llama.layer.takes` accepts, in evaluation mode.
        primal: the ordinary pass, with what entered each of :func:`entrances`.
        cut: first position whose gradient is wanted.
        columns: sorted response tokens, from 0; each predicted at the cut or behind it.
        crossings: tangents of the sources ahead of the cut, from :func:`llama_tangents`.

    Returns:
        [chunk, length - cut, width] d f_m / d E, zero behind the place that predicts y_m; and
        [sources, chunk] derivatives of f_m along the tangents, source by source as in ``crossings``.
    """
    body = getattr(model, model.base_model_prefix)
    length, response = len(primal.embeddings), len(primal.gradient)
    cos, sin = rotations(body, primal.embeddings[cut:], cut)
    *streams, last = (stream[cut:] for stream in primal.streams)
    places = [length - response + column - cut for column in columns]
    # Up to the last attention a cotangent lies at one place alone.
    entered = Norm(body.norm, last[places]).cotangent(primal.gradient[columns].to(last)[:, None])[:, 0]
    tips = Part([(i, i + 1) for i in range(len(columns))], entered, list(range(len(columns))))
    _through_mlp(body.layers[-1], streams[-1][places], [tips])
    spans = list(groups([place + 1 for place in places]))
    parts = [Part([(0, place + 1) for place in places[some]], tips.rows[some], places[some]) for some in spans]
    first = min((crossing.first for crossing in crossings), default=cut)
    met = [[last.new_zeros(len(crossing.moved[0]), part.count) for part in parts] for crossing in crossings]
    layers = list(enumerate(zip(body.layers, primal.keys, primal.values, strict=True)))
    for i, (layer, key, value) in reversed(layers):
        if i < len(layers) - 1:
            _through_mlp(layer, streams[2 * i + 1], parts)
        norm = Norm(layer.input_layernorm, streams[2 * i])
        maps = Attention(layer.self_attn, norm.y, key[0], value[0], cos, sin)
        for j, part in enumerate(parts):
            back, ahead = _through_attention(maps, part, first)
            _add(part, back, norm)
            for sums, crossing in zip(met, crossings, strict=True):
                moved = crossing.moved[i]
                sums[j].addmm_(moved, ahead[:, -moved.shape[1] :].T)
    out = last.new_zeros(len(columns), length - cut, last.shape[-1])
    for some, part in zip(spans, parts, strict=True):
        part.onto(out[some].transpose(0, 1), part.rows)
    along = [torch.cat(sums, dim=1) for sums in met]
    return out, torch.cat(along) if along else last.new_zeros(0, len(columns))


def entrances(model: PreTrainedModel) -> list[nn.Module]:
    """The modules whose inputs :func:`llama_cotangents` needs: per layer, attention and MLP norm; the last norm.

    Args:
        model: a model that :func:`~shiftlens.attribution.llama.layer.takes` accepts.
    """
    body = getattr(model, model.base_model_prefix)
    norms = [norm for layer in body.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    return [*norms, body.norm]


def _through_mlp(layer: Any, x: Tensor, parts: list[Part]) -> None:
    """Moves `parts` back through the MLP and its norm, where x entered, in place."""
    mlp, norm = layer.mlp, Norm(layer.post_attention_layernorm, x)
    primal = gates(mlp, norm.y)
    for part in parts:
        arrived = part.rows @ mlp.down_proj.weight
        to_gate = torch.empty_like(arrived)
        for (out, at), (piece, _) in zip(part.pieces(to_gate), part.pieces(arrived), strict=True):
            torch.mul(piece, primal.slope[at][:, None], out=out)
            piece.mul_(primal.active[at][:, None])
        moved = to_gate @ mlp.gate_proj.weight
        _add(part, moved.addmm_(arrived, mlp.up_proj.weight), norm)


def _add(part: Part, dy: Tensor, norm: Norm) -> None:
    """Add what goes back through a norm for dy [row, width]; changes dy."""
    for piece, at in part.pieces(dy):
        norm.cotangent(piece, at)
    part.rows += dy


def _through_attention(maps: Attention, part: Part, first: int) -> tuple[Tensor, Tensor]:
    """Cotangents of what enters the attention, [row, width], for those of what leaves it.

    With them come those of the keys and values from position ``first`` up to the cut, :func:`joined`.
    """
    module, length, count = maps.module, part.high, part.count
    groups, _, head = maps.key.shape
    ahead = maps.prefix - first  # keys ahead of the cut whose cotangents are wanted
    scaled = maps.key * module.scaling
    moved = (part.rows @ module.o_proj.weight).view(len(part.rows), groups, -1, head)
    repeat = moved.shape[2]
    # Layouts that make each product below one matrix product per group.
    arrived = moved.new_zeros(groups, length, repeat, count, head)
    part.onto(arrived.permute(1, 3, 0, 2, 4), moved)
    dq = torch.empty_like(arrived)
    dk = arrived.new_zeros(groups, count, ahead + length, head)
    dv = arrived.new_zeros(groups, ahead + length, count * head)
    block = BLOCK.get(part.rows.device.type, BLOCK["cuda"])
    for low in range(0, length, block):
        high = min(low + block, length)
        seen, wanted = maps.prefix + high, ahead + high
        d_out = arrived[:, low:high].flatten(1, 3)  # group, i x r x c, head
        weights = maps.weights[:, low:high, :, :seen].flatten(1, 2)  # group, i x r, j
        out, query = maps.out[:, low:high].flatten(1, 2), maps.query[:, low:high].flatten(1, 2)
        # <dO, O> is the sum of P * dP over the keys.
        along = (d_out.view(groups, -1, count, head) @ out[..., None]).view(groups, -1, count, 1)
        ds = (d_out @ maps.value[:, :seen].mT).view(groups, -1, count, seen)
        ds.sub_(along).mul_(weights[:, :, None])
        dq[:, low:high] = (ds.view(groups, -1, seen) @ scaled[:, :seen]).view(groups, -1, repeat, count, head)
        moved = ds[..., first:].reshape(groups, -1, count * wanted).mT @ query
        dk[:, :, :wanted] += moved.view(groups, count, wanted, head)
        dv[:, :wanted] += weights[..., first:].mT @ d_out.view(groups, -1, count * head)
    dv = dv.view(groups, ahead + length, count, head)
    dq = maps.rotate_back(dq.permute(1, 3, 0, 2, 4))  # position, cotangent, g, r, h
    own_dk = maps.rotate_back(dk[:, :, ahead:, None].permute(2, 1, 0, 3, 4))
    if maps.q_norm is not None and maps.k_norm is not None:
        own = slice(length)
        dq, own_dk = maps.q_norm.cotangent(dq.contiguous(), own), maps.k_norm.cotangent(own_dk.contiguous(), own)
    back = part.flat(dq) @ module.q_proj.weight
    back.addmm_(part.flat(own_dk), module.k_proj.weight)
    back.addmm_(part.flat(dv[:, ahead:].permute(1, 2, 0, 3)), module.v_proj.weight)
    return back, joined(dk[:, :, :ahead], dv[:, :ahead])
