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

from shiftlens.attribution.llama_layer import BLOCK, Attention, Norm, gates, rotations
from shiftlens.attribution.primal import Primal

PART, ROWS = 16, 1536
"""Most cotangents per matrix product, and about so many rows: enough for full speed, few enough for the cache."""


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
    each = torch.arange(len(columns), device=last.device)
    entered = Norm(body.norm, last[places]).cotangent(primal.gradient[columns].to(last)[:, None])[:, 0]
    tips = _Part(entered, 0, 1, each, each)
    _through_mlp(body.layers[-1], streams[-1][places], [tips])
    size = max(1, min(PART, ROWS // (places[-1] + 1)))
    starts = range(0, len(columns), size)
    parts = [_part(tips.rows[i : i + size], places[i : i + size]) for i in starts]
    layers = list(enumerate(zip(body.layers, primal.keys, primal.values, strict=True)))
    for i, (layer, key, value) in reversed(layers):
        if i < len(layers) - 1:
            _through_mlp(layer, streams[2 * i + 1], parts)
        _through_attention(layer, streams[2 * i], parts, key[0], value[0], cos, sin)
    out = last.new_zeros(len(columns), length - start, last.shape[-1])
    for i, part in zip(starts, parts, strict=True):
        grid = part.spread(part.rows, last.new_zeros(part.length, part.count, last.shape[-1]))
        out[i : i + part.count, : len(grid)] = grid.transpose(0, 1)
    return out


class _Part:
    """Some cotangents, at those places only that each of them reaches: sorted, they end one after another.

    Args:
        rows: [row, width] position by position; first those that all cotangents reach.
        dense: number of positions that all reach.
        count: number of cotangents.
        places: [row - dense x count] position of each further row.
        columns: [row - dense x count] cotangent of each further row.
    """

    def __init__(self, rows: Tensor, dense: int, count: int, places: Tensor, columns: Tensor) -> None:
        self.rows, self.dense, self.count, self.places, self.columns = rows, dense, count, places, columns
        self.length = dense + len(places.unique())

    def pieces(self, x: Tensor) -> tuple[tuple[Tensor, slice | Tensor], ...]:
        """Views [position, derivative, ...] of x [row, ...], each with its positions."""
        edge = self.dense * self.count
        return (
            (x[:edge].view(self.dense, self.count, *x.shape[1:]), slice(self.dense)),
            (x[edge:, None], self.places),
        )

    def add(self, dy: Tensor, norm: Norm) -> None:
        """Add what goes back through a norm for dy [row, width]; changes dy."""
        for piece, at in self.pieces(dy):
            norm.cotangent(piece, at)
        self.rows += dy

    def spread(self, x: Tensor, grid: Tensor) -> Tensor:
        """Put x [row, ...] on a grid [position, cotangent, ...] of zeros, which is changed."""
        dense, rest = self.pieces(x)
        grid[: self.dense] = dense[0]
        grid[rest[1], self.columns] = rest[0][:, 0]
        return grid

    def gather(self, grid: Tensor) -> Tensor:
        """The rows, [row, width], of a grid [position, cotangent, ...]."""
        rows = grid.new_empty(len(self.rows), *grid.shape[2:])
        dense, rest = self.pieces(rows)
        dense[0].copy_(grid[: self.dense])
        rest[0][:, 0] = grid[rest[1], self.columns]
        return rows.flatten(1)


def _part(tips: Tensor, places: list[int]) -> _Part:
    """Cotangents that enter at some places, one each."""
    count, dense = len(places), places[0] + 1
    further = [(i, column) for i in range(dense, places[-1] + 1) for column in range(count) if places[column] >= i]
    at = torch.tensor([i for i, _ in further], dtype=torch.long, device=tips.device)
    own = torch.tensor([column for _, column in further], dtype=torch.long, device=tips.device)
    part = _Part(tips.new_empty(dense * count + len(further), tips.shape[-1]), dense, count, at, own)
    grid = tips.new_zeros(part.length, count, tips.shape[-1])
    grid[places, range(count)] = tips
    part.rows = part.gather(grid)
    return part


def entrances(model: PreTrainedModel) -> list[nn.Module]:
    """The modules whose inputs :func:`llama_cotangents` needs: per layer, attention and MLP norm; the last norm.

    Args:
        model: a model that :func:`~shiftlens.attribution.llama_layer.takes` accepts.
    """
    body = getattr(model, model.base_model_prefix)
    norms = [norm for layer in body.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    return [*norms, body.norm]


def _through_mlp(layer: Any, x: Tensor, parts: list[_Part]) -> None:
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
        part.add(moved.addmm_(arrived, mlp.up_proj.weight), norm)


def _through_attention(
    layer: Any, x: Tensor, parts: list[_Part], key: Tensor, value: Tensor, cos: Tensor, sin: Tensor
) -> None:
    """Moves `parts` back through the attention and its norm, where x entered, in place."""
    norm = Norm(layer.input_layernorm, x)
    maps = Attention(layer.self_attn, norm.y, key, value, cos, sin)
    for part in parts:
        part.add(_back(maps, part), norm)


def _back(maps: Attention, part: _Part) -> Tensor:
    """Cotangents of what enters the attention, [row, width], for those of what leaves it."""
    module, length, count = maps.module, part.length, part.count
    groups, _, head = maps.key.shape
    before = maps.prefix  # keys whose cotangents nobody wants
    scaled = maps.key * module.scaling
    moved = (part.rows @ module.o_proj.weight).view(len(part.rows), groups, -1, head)
    repeat = moved.shape[2]
    # Layouts that make each product below one matrix product per group.
    arrived = moved.new_zeros(groups, length, repeat, count, head)
    part.spread(moved, arrived.permute(1, 3, 0, 2, 4))
    dq = torch.empty_like(arrived)
    dk = arrived.new_zeros(groups, count * length, head)  # group, cotangent x position, head
    dv = arrived.new_zeros(groups, length, count * head)  # group, position, cotangent x head
    block = BLOCK.get(part.rows.device.type, BLOCK["cuda"])
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
        dq[:, low:high] = (ds.view(groups, -1, seen) @ scaled[:, :seen]).view(groups, -1, repeat, count, head)
        moved = ds[..., before:].reshape(groups, -1, count * high).mT @ query
        dk.view(groups, count, length, head)[:, :, :high] += moved.view(groups, count, high, head)
        dv[:, :high] += weights[..., before:].mT @ d_out.view(groups, -1, count * head)
    dq = maps.rotate_back(dq.permute(1, 3, 0, 2, 4))  # position, cotangent, g, r, h
    dk = maps.rotate_back(dk.view(groups, count, length, 1, head).permute(2, 1, 0, 3, 4))
    if maps.q_norm is not None and maps.k_norm is not None:
        own = slice(length)
        dq, dk = maps.q_norm.cotangent(dq.contiguous(), own), maps.k_norm.cotangent(dk.contiguous(), own)
    dv = dv.view(groups, length, count, head).permute(1, 2, 0, 3)
    back = part.gather(dq) @ module.q_proj.weight
    back.addmm_(part.gather(dk), module.k_proj.weight)
    return back.addmm_(part.gather(dv), module.v_proj.weight)
