"""The tangents of :mod:`shiftlens.attribution.forward`, written out for layers of the LLaMA kind.

Per layer (see :mod:`shiftlens.attribution.llama_layer`):

    dy = w r (dx - x^ <x^, dx> / width),  x^ = x r
    dO = X V - sum(X) O + P dV,           X = P * (dQ K^T + Q dK^T)
    d(a(g) u) = a'(g) u dg + a(g) du
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from shiftlens.attribution.llama_layer import BLOCK, Attention, Norm, gates, rotations
from shiftlens.attribution.primal import Primal

PART = 8
"""Tangents per matrix product: enough for full speed, few enough to stay in cache."""


def llama_tangents(
    model: PreTrainedModel, primal: Primal, sources: list[int]
) -> Float[Tensor, "chunk after hidden"]:
    """Tangents of h, what enters the output layer, along E[s] at position s, for every source; exact.

    Memory: chunk x (length - sources[0]) x width for the tangents, and per layer one attention matrix.

    Args:
        model: a model :func:`takes` accepts, in evaluation mode.
        primal: the ordinary pass.
        sources: sorted positions, one per tangent.

    Returns:
        Tangents of what enters the output layer, [chunk, length - sources[0], hidden].
    """
    start, body = sources[0], getattr(model, model.base_model_prefix)
    x = primal.embeddings[start:]
    cos, sin = rotations(body, x, start)
    # Each part begins at its own first source; before that its tangents are zero.
    parts = []
    for i in range(0, len(sources), PART):
        some = sources[i : i + PART]
        part = x.new_zeros(len(primal.embeddings) - some[0], len(some), x.shape[-1])
        for column, source in enumerate(some):
            part[source - some[0], column] = primal.embeddings[source]
        parts.append(part)

    for layer, key, value in zip(body.layers, primal.keys, primal.values, strict=True):
        x = _layer(layer, x, parts, key[0], value[0], cos, sin)
    norm = Norm(body.norm, x)
    out = x.new_zeros(len(sources), *x.shape)
    for i, part in enumerate(parts):
        out[i * PART : i * PART + part.shape[1], -len(part) :] = norm.tangent(part).transpose(0, 1)
    return out


def _layer(
    layer: Any, x: Tensor, parts: list[Tensor], key: Tensor, value: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """Moves `parts` through one layer in place; returns the layer's own output, [position, width]."""
    attention, mlp = layer.self_attn, layer.mlp
    norm = Norm(layer.input_layernorm, x)
    maps = Attention(attention, norm.y, key, value, cos, sin)
    for part in parts:
        mixed = _mixed(maps, norm.tangent(part))
        part.view(-1, part.shape[-1]).addmm_(mixed, attention.o_proj.weight.T)
    x = x + attention.o_proj(maps.mixed)

    norm = Norm(layer.post_attention_layernorm, x)
    primal = gates(mlp, norm.y)
    active, slope = primal.active[:, None], primal.slope[:, None]
    for part in parts:
        moved, at = norm.tangent(part), len(part)
        inner = nn.functional.linear(moved, mlp.gate_proj.weight).mul_(slope[-at:])
        inner.addcmul_(nn.functional.linear(moved, mlp.up_proj.weight), active[-at:])
        part.view(-1, part.shape[-1]).addmm_(inner.flatten(0, 1), mlp.down_proj.weight.T)
    return x + mlp.down_proj(primal.active * primal.up)


def _mixed(maps: Attention, dy: Tensor) -> Tensor:
    """Tangents of what enters o_proj, [position x tangent, width], for dy [position, tangent, width]."""
    module, (length, tangents, _) = maps.module, dy.shape
    groups, total, head = maps.key.shape
    dq, dk, dv = (
        nn.functional.linear(dy, linear.weight).view(length, tangents, groups, -1, head)
        for linear in (module.q_proj, module.k_proj, module.v_proj)
    )
    if maps.q_norm is not None and maps.k_norm is not None:
        dq, dk = maps.q_norm.tangent(dq), maps.k_norm.tangent(dk)
    # Layouts that make each product below one matrix product per group.
    scaled = maps.key * module.scaling
    dq = maps.rotate(dq).permute(2, 0, 3, 1, 4).contiguous()  # g, position, r, tangent, h
    dk = maps.rotate(dk)[:, :, :, 0].permute(2, 1, 0, 3).contiguous()  # group, tangent, position, head
    dv = dv[:, :, :, 0].permute(2, 0, 1, 3).contiguous()  # group, position, tangent, head
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
    return mixed.view(length * tangents, -1)
