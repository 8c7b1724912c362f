"""Computes the tangents of mixed mode with hand-written derivatives of LLaMA-type layers.

Per layer, in the notation and with the axes of :mod:`shiftlens.attribution.llama.layer`:

    dy = w r (dx - x^ <x^, dx> / width),  x^ = x r
    dO = X V - sum(X) O + P dV,           X = P * (dQ K^T + Q dK^T)
    d(a(g) u) = a'(g) u dg + a(g) du

For AttnLRP, the same with other factors and no x^; what crosses the cut keeps its size, as factors belong to the
queries that read keys and values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.llama.causal_attention import BLOCK, Attention
from shiftlens.attribution.llama.gated_mlp import gates
from shiftlens.attribution.llama.layer import joined, rotations
from shiftlens.attribution.llama.packing import Part, groups
from shiftlens.attribution.llama.products import add_product, apply, product
from shiftlens.attribution.llama.rms_norm import Norm
from shiftlens.attribution.modes.primal import Primal
from shiftlens.support.libraries.transformers_parts import body_of


class Crossing(NamedTuple):
    """Tangents of the keys and values before a cut, for the sources of one pack or chunk.

    Positions from the cut on depend on these sources through nothing else.

    Args:
        first: First position with a tangent; the last one is just before the cut.
        moved: For each layer the tangents, laid out by :func:`~shiftlens.attribution.llama.layer.joined`.
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
    """Carry a tangent along E[s] from every source position s up to a cut; exact.

    Memory: chunk x (cut - sources[0]) x width for the tangents, the attention matrix of one layer, and, with
    ``crossing``, the tangents of keys and values in all layers.

    Args:
        model: Model that :func:`~shiftlens.attribution.llama.layer.takes` accepts, in evaluation mode.
        primal: Primal values of the text, at least float32, from the ordinary pass.
        sources: Sorted positions before the cut, one per tangent.
        cut: Position where the tangents end; the text's length less one carries them through the whole text.
        hidden: Whether to return the tangents of h, the input of the output layer.
        crossing: Whether to return the tangents of keys and values.

    Returns:
        The tangents of h, [chunk, cut - sources[0], hidden], or None; and the tangents of keys and values, pack by
        pack in the order of the sources, or an empty list.
    """
    start, body, lrp = sources[0], body_of(model), primal.variant.lrp
    x = primal.embeddings[start:cut]  # [positions, width], the primal residual stream of the window
    cos, sin = rotations(body, x, start)  # [positions, head] each
    spans = list(groups([cut - source for source in sources]))  # the sources of each pack
    packs = []
    for span in spans:
        offsets = [source - start for source in sources[span]]
        packs.append(Part([(first, cut - start) for first in offsets], primal.directions[sources[span]], offsets))
    crossings = [Crossing(sources[span.start], []) for span in spans]

    for layer, key, value in zip(body.layers, primal.keys, primal.values, strict=True):
        norm = Norm(layer.input_layernorm, x, lrp)
        maps = Attention(layer.self_attn, norm.y, key[0, :, :cut], value[0, :, :cut], cos, sin, lrp)
        # Without h the last layer is needed only for its keys and values.
        keys_only = layer is body.layers[-1] and not hidden
        for pack, pack_crossing in zip(packs, crossings, strict=True):
            dy = _through_norm(norm, pack)  # [rows, width]
            # [groups, tangents, positions, head] and [groups, positions, tangents, head]
            dk, dv = _keys_and_values(maps, pack, dy)
            if crossing:
                pack_crossing.moved.append(joined(dk, dv))  # [tangents, positions x (keys and values)]
            if not keys_only:
                d_mixed = _through_attention(maps, pack, dy, dk, dv)  # [rows, heads x head]
                add_product(pack.rows, d_mixed, layer.self_attn.o_proj.weight.T)  # [rows, width]
        if not keys_only:
            x = _through_mlp(
                layer, x + apply(layer.self_attn.o_proj, maps.mixed), packs, lrp
            )  # [positions, width]
    if not hidden:
        return None, crossings
    norm = Norm(body.norm, x, lrp)
    out = x.new_zeros(len(sources), *x.shape)  # [chunk, positions, width]
    for span, pack in zip(spans, packs, strict=True):
        pack.onto(out[span, pack.low :].transpose(0, 1), _through_norm(norm, pack))
    return out, crossings if crossing else []


def _through_norm(norm: Norm, pack: Part) -> Tensor:
    """Compute the tangents of a norm's output, [rows, width]."""
    out = torch.empty_like(pack.rows)  # [rows, width]
    # Common block: [offsets, tangents, width]; other rows: [further rows, 1, width].
    for (dx, at), (dy, _) in zip(pack.pieces(pack.rows), pack.pieces(out), strict=True):
        norm.tangent(dx, at, dy)
    return out


def _through_mlp(layer: Any, x: Tensor, packs: list[Part], lrp: bool) -> Tensor:
    """Carry packs through the MLP and its norm, in place; return the layer's primal output, [positions, width]."""
    mlp, norm = layer.mlp, Norm(layer.post_attention_layernorm, x, lrp)
    primal = gates(mlp, norm.y, lrp)  # [positions, inner] each
    for pack in packs:
        dy = _through_norm(norm, pack)  # [rows, width]
        inner, up = product(dy, mlp.gate_proj.weight.T), product(dy, mlp.up_proj.weight.T)
        # inner, up: [rows, inner]; inner is dg at first and d(a(g) u) after the loop
        for (dg, at), (du, _) in zip(pack.pieces(inner), pack.pieces(up), strict=True):
            dg.mul_(primal.by_gate[at][:, None]).addcmul_(du, primal.by_up[at][:, None])
        add_product(pack.rows, inner, mlp.down_proj.weight.T)  # [rows, width]
    return x + apply(mlp.down_proj, primal.out)


def _keys_and_values(maps: Attention, pack: Part, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the tangents of rotated keys and of values, at the positions from the pack's first source on.

    Their layouts make each product of :func:`_through_attention` one matrix product per group.

    Returns:
        Tangents of keys, [groups, tangents, positions, head], and of values, [groups, positions, tangents, head].
    """
    module, (groups, _, head) = maps.module, maps.key.shape
    dk, dv = (
        pack.grid(product(dy, linear.weight.T).view(-1, groups, 1, head))
        for linear in (module.k_proj, module.v_proj)
    )  # [positions, tangents, groups, 1, head] each
    if maps.k_norm is not None:
        dk = maps.k_norm.tangent(dk, slice(pack.low, None))
    dk = maps.rotate(dk)[:, :, :, 0]  # [positions, tangents, groups, head]
    return dk.permute(2, 1, 0, 3).contiguous(), dv[:, :, :, 0].permute(2, 0, 1, 3).contiguous()


def _through_attention(maps: Attention, pack: Part, dy: Tensor, dk: Tensor, dv: Tensor) -> Tensor:
    """Compute the tangents of o_proj's input, [rows, heads x head].

    Args:
        maps: Primal values of the attention.
        pack: Layout of the rows.
        dy: [rows, width] tangents of the attention's input.
        dk: [groups, tangents, positions, head] tangents of the keys, from :func:`_keys_and_values`.
        dv: [groups, positions, tangents, head] tangents of the values, from the same function.
    """
    module, (groups, _, head) = maps.module, maps.key.shape
    # [positions, tangents, groups, repeat, head], positions from the pack's first source on
    dq = pack.grid(product(dy, module.q_proj.weight.T).view(len(dy), groups, -1, head))
    length, tangents = dq.shape[:2]
    if maps.q_norm is not None:
        dq = maps.q_norm.tangent(dq, slice(pack.low, None))
    # In this layout each product below is one matrix product per group.
    dq = maps.rotate(dq).permute(2, 0, 3, 1, 4).contiguous()  # [groups, positions, repeat, tangents, head]
    scaled = maps.key * (module.scaling * maps.to_logits)  # [groups, keys, head]
    skipped = maps.query.shape[1] - length  # positions of the window before the pack's first source
    before = maps.prefix + skipped  # keys without a tangent
    # [positions, tangents, groups, repeat, head]
    d_mixed = dy.new_empty(length, tangents, groups, dq.shape[2], head)
    block = BLOCK.get(dy.device.type, BLOCK["cuda"])
    for low in range(0, length, block):
        high = min(low + block, length)
        # Axes: queries = (high - low) x repeat; moving = the high keys from the pack's first source on.
        in_window = slice(skipped + low, skipped + high)
        # [groups, queries, head] and [groups, queries, keys]
        query, weights = maps.query[:, in_window].flatten(1, 2), maps.weights[:, in_window].flatten(1, 2)
        block_dq = dq[:, low:high].flatten(1, 3)  # [groups, queries x tangents, head]
        # Keys with a tangent: one product for dQ K^T, and a second one added onto it for Q dK^T.
        x = block_dq @ scaled[:, before : before + high].mT  # [groups, queries x tangents, moving]
        x = x.view(groups, -1, tangents * high)  # [groups, queries, tangents x moving]
        x.baddbmm_(query, dk[:, :, :high].flatten(1, 2).mT, alpha=maps.to_logits)
        recent = weights[:, :, None, before : before + high]  # [groups, queries, 1, moving]
        x = x.view(groups, -1, tangents, high).mul_(recent)  # [groups, queries, tangents, moving], X
        # sums: [groups, queries, tangents]; x, from here on dO: [groups, queries x tangents, head]
        sums, x = x.sum(-1), x.flatten(1, 2) @ maps.value[:, before : before + high]
        x = x.view(groups, -1, tangents * head)  # [groups, queries, tangents x head]
        x.baddbmm_(recent[:, :, 0], dv[:, :high].flatten(2), alpha=maps.to_values)
        x = x.view(groups, -1, tangents, head)  # [groups, queries, tangents, head]
        if before:  # keys without a tangent: dK = dV = 0
            y = (block_dq @ scaled[:, :before].mT).view(groups, -1, tangents, before)
            y.mul_(weights[:, :, None, :before])  # [groups, queries, tangents, before], X
            sums += y.sum(-1)
            x += (y.flatten(1, 2) @ maps.value[:, :before]).view_as(x)
        x -= sums[..., None] * maps.out[:, in_window].flatten(1, 2)[:, :, None]
        x = x.view(groups, high - low, -1, tangents, head)  # [groups, positions, repeat, tangents, head]
        d_mixed[low:high] = x.permute(1, 3, 0, 2, 4)  # [positions, tangents, groups, repeat, head]
    return pack.flat(d_mixed)
