"""The tangents of :mod:`shiftlens.attribution.modes.mixed`, written out for layers of the LLaMA kind.

Per layer (see :mod:`shiftlens.attribution.llama.layer`):

    dy = w r (dx - x^ <x^, dx> / width),  x^ = x r
    dO = X V - sum(X) O + P dV,           X = P * (dQ K^T + Q dK^T)
    d(a(g) u) = a'(g) u dg + a(g) du
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from shiftlens.attribution.llama.layer import BLOCK, Attention, Norm, gates, joined, rotations
from shiftlens.attribution.llama.packing import Part, groups
from shiftlens.attribution.modes.primal import Primal


class Crossing(NamedTuple):
    """Tangents of the keys and values ahead of a cut: all that positions behind it see of some sources.

    Args:
        first: position of the first row; the last is the one ahead of the cut.
        moved: per layer the tangents, as :func:`~shiftlens.attribution.llama.layer.joined` lays them out.
    """

    first: int
    moved: list[Float[Tensor, "source positions_x_keys_and_values"]]


def llama_tangents(
    model: PreTrainedModel,
    primal: Primal,
    sources: list[int],
    cut: int,
    *,
    hidden: bool = True,
    crossing: bool = False,
) -> tuple[Float[Tensor, "chunk ahead hidden"] | None, list[Crossing]]:
    """Tangents along E[s] at position s, for every source, from sources[0] up to a cut; exact.

    Memory: chunk x (cut - sources[0]) x width for the tangents, per layer one attention matrix, and, with
    ``crossing``, what crosses.

    Args:
        model: a model that :func:`~shiftlens.attribution.llama.layer.takes` accepts, in evaluation mode.
        primal: the ordinary pass.
        sources: sorted positions ahead of the cut, one per tangent.
        cut: where to end; the text's length (less the last id) to carry them through all of it.
        hidden: whether the tangents of h, what enters the output layer, are wanted.
        crossing: whether those of keys and values are.

    Returns:
        Tangents of h, [chunk, cut - sources[0], hidden], or None; and part by part, in the order of the sources,
        what crosses the cut, or nothing.
    """
    start, body = sources[0], getattr(model, model.base_model_prefix)
    x = primal.embeddings[start:cut]
    cos, sin = rotations(body, x, start)
    spans = list(groups([cut - source for source in sources]))
    parts = []
    for span in spans:
        places = [source - start for source in sources[span]]
        parts.append(Part([(place, cut - start) for place in places], primal.embeddings[sources[span]], places))
    crossings = [Crossing(sources[span.start], []) for span in spans]

    for layer, key, value in zip(body.layers, primal.keys, primal.values, strict=True):
        norm = Norm(layer.input_layernorm, x)
        maps = Attention(layer.self_attn, norm.y, key[0, :, :cut], value[0, :, :cut], cos, sin)
        last = layer is body.layers[-1] and not hidden
        for part, seen in zip(parts, crossings, strict=True):
            dy = _through_norm(norm, part)
            dk, dv = _keys_and_values(maps, part, dy)
            if crossing:
                seen.moved.append(joined(dk, dv))
            if not last:
                entering = _through_attention(maps, part, dy, dk, dv)
                part.rows.addmm_(entering, layer.self_attn.o_proj.weight.T)
        if not last:
            x = _through_mlp(layer, x + layer.self_attn.o_proj(maps.mixed), parts)
    if not hidden:
        return None, crossings
    norm = Norm(body.norm, x)
    out = x.new_zeros(len(sources), *x.shape)
    for span, part in zip(spans, parts, strict=True):
        part.onto(out[span, part.low :].transpose(0, 1), _through_norm(norm, part))
    return out, crossings if crossing else []


def _through_norm(norm: Norm, part: Part) -> Tensor:
    """Tangents of what leaves a norm, [row, width]."""
    out = torch.empty_like(part.rows)
    for (piece, at), (to, _) in zip(part.pieces(part.rows), part.pieces(out), strict=True):
        norm.tangent(piece, at, to)
    return out


def _through_mlp(layer: Any, x: Tensor, parts: list[Part]) -> Tensor:
    """Moves `parts` through the MLP and its norm in place; returns the layer's own output, [position, width]."""
    mlp, norm = layer.mlp, Norm(layer.post_attention_layernorm, x)
    primal = gates(mlp, norm.y)
    for part in parts:
        dy = _through_norm(norm, part)
        inner, up = nn.functional.linear(dy, mlp.gate_proj.weight), nn.functional.linear(dy, mlp.up_proj.weight)
        for (piece, at), (moved, _) in zip(part.pieces(inner), part.pieces(up), strict=True):
            piece.mul_(primal.slope[at][:, None]).addcmul_(moved, primal.active[at][:, None])
        part.rows.addmm_(inner, mlp.down_proj.weight.T)
    return x + mlp.down_proj(primal.active * primal.up)


def _keys_and_values(maps: Attention, part: Part, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Tangents of keys [group, tangent, position, head], rotated, and values [group, position, tangent, head].

    Layouts that make each product of :func:`_through_attention` one matrix product per group.
    """
    module, (groups, _, head) = maps.module, maps.key.shape
    dk, dv = (
        part.grid(nn.functional.linear(dy, linear.weight).view(-1, groups, 1, head))
        for linear in (module.k_proj, module.v_proj)
    )
    if maps.k_norm is not None:
        dk = maps.k_norm.tangent(dk, slice(part.low, None))
    dk = maps.rotate(dk)[:, :, :, 0]
    return dk.permute(2, 1, 0, 3).contiguous(), dv[:, :, :, 0].permute(2, 0, 1, 3).contiguous()


def _through_attention(maps: Attention, part: Part, dy: Tensor, dk: Tensor, dv: Tensor) -> Tensor:
    """Tangents of what enters o_proj, [row, width], for those of what enters the attention, [row, width]."""
    module, (groups, _, head) = maps.module, maps.key.shape
    dq = part.grid(nn.functional.linear(dy, module.q_proj.weight).view(len(dy), groups, -1, head))
    length, tangents = dq.shape[:2]
    if maps.q_norm is not None:
        dq = maps.q_norm.tangent(dq, slice(part.low, None))
    # group, position, repeat, tangent, head: each product below is one matrix product per group.
    dq = maps.rotate(dq).permute(2, 0, 3, 1, 4).contiguous()
    scaled = maps.key * module.scaling
    skipped = maps.query.shape[1] - length
    before = maps.prefix + skipped  # keys without a tangent
    mixed = dy.new_empty(length, tangents, groups, dq.shape[2], head)
    block = BLOCK.get(dy.device.type, BLOCK["cuda"])
    for low in range(0, length, block):
        high = min(low + block, length)
        rows = slice(skipped + low, skipped + high)
        query, weights = maps.query[:, rows].flatten(1, 2), maps.weights[:, rows].flatten(1, 2)
        moved = dq[:, low:high].flatten(1, 3)
        # Keys that move: one product for dQ K^T, a second added onto it for Q dK^T.
        x = moved @ scaled[:, before : before + high].mT
        x = x.view(groups, -1, tangents * high)
        x.baddbmm_(query, dk[:, :, :high].flatten(1, 2).mT)
        recent = weights[:, :, None, before : before + high]
        x = x.view(groups, -1, tangents, high).mul_(recent)
        sums, x = x.sum(-1), x.flatten(1, 2) @ maps.value[:, before : before + high]
        x = x.view(groups, -1, tangents * head)
        x.baddbmm_(recent[:, :, 0], dv[:, :high].flatten(2))
        x = x.view(groups, -1, tangents, head)
        if before:  # keys that stay: dK = dV = 0
            y = (moved @ scaled[:, :before].mT).view(groups, -1, tangents, before)
            y.mul_(weights[:, :, None, :before])
            sums += y.sum(-1)
            x += (y.flatten(1, 2) @ maps.value[:, :before]).view_as(x)
        x -= sums[..., None] * maps.out[:, rows].flatten(1, 2)[:, :, None]
        x = x.view(groups, high - low, -1, tangents, head)
        mixed[low:high] = x.permute(1, 3, 0, 2, 4)
    return part.flat(mixed)
