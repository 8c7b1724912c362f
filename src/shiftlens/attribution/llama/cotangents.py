"""Computes the cotangents of mixed mode with hand-written derivatives of LLaMA-type layers.

Per layer, in the notation and with the axes of :mod:`shiftlens.attribution.llama.layer`:

    dx = u - x^ <x^, u> / width,  u = w r dy
    dS = P * (dO V^T - <dO, O>),  dQ = dS K,  dK = dS^T Q,  dV = P^T dO
    dg = a'(g) u dz,  du = a(g) dz

For AttnLRP, the same with other factors and no x^.

A cotangent enters at the position that predicts its response token, and reaches only earlier positions; so it has
rows from the cut up to that position alone. Positions before the cut influence later ones through keys and values
alone, so there the cotangents of keys and values meet the tangents of :mod:`shiftlens.attribution.llama.tangents`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from shiftlens.attribution.llama.causal_attention import BLOCK, Attention
from shiftlens.attribution.llama.gated_mlp import gates
from shiftlens.attribution.llama.layer import joined, rotations
from shiftlens.attribution.llama.packing import Part, groups
from shiftlens.attribution.llama.products import add_product, product
from shiftlens.attribution.llama.rms_norm import Norm
from shiftlens.attribution.llama.tangents import Crossing
from shiftlens.attribution.modes.primal import Primal
from shiftlens.support.libraries.transformers_parts import body_of


def llama_cotangents(
    model: PreTrainedModel, primal: Primal, cut: int, columns: list[int], crossings: Sequence[Crossing] = ()
) -> tuple[Float[Tensor, "chunk behind width"], Float[Tensor, "sources chunk"]]:
    """Compute gradients of the embeddings from a cut on, and derivatives along the tangents that cross it; exact.

    Memory: chunk x (length - cut) x width for the cotangents, and the primal values of one layer, which are
    recomputed from the inputs of its norms.

    Args:
        model: Model that :func:`~shiftlens.attribution.llama.layer.takes` accepts, in evaluation mode.
        primal: Primal values of the text, at least float32, with the inputs of the modules that :func:`entrances`
            lists.
        cut: First position whose gradient is returned.
        columns: Sorted indices of response tokens, counted from 0; each predicted at the cut or later.
        crossings: Tangents of the sources before the cut, from :func:`llama_tangents`.

    Returns:
        d f_m / d E, [chunk, length - cut, width], zero after the position that predicts y_m; and the derivatives
        of f_m along the tangents, [sources, chunk], with the sources in the order of ``crossings``.
    """
    body, lrp = body_of(model), primal.variant.lrp
    length, response = len(primal.embeddings), len(primal.gradient)
    cos, sin = rotations(body, primal.embeddings[cut:], cut)  # [positions, head] each
    # Inputs of the norms, [positions, width] each: two per layer, and that of the last norm.
    *streams, last = (stream[cut:] for stream in primal.streams)
    offsets = [length - response + column - cut for column in columns]  # predicting positions, from the cut
    # After the last attention a cotangent is at one position alone, so the last MLP needs only these rows.
    norm = Norm(body.norm, last[offsets], lrp)
    entered = norm.cotangent(primal.gradient[columns].to(last)[:, None])[:, 0]  # [chunk, width]
    tips = Part([(i, i + 1) for i in range(len(columns))], entered, list(range(len(columns))))
    _through_mlp(body.layers[-1], streams[-1][offsets], [tips], lrp)  # tips.rows: [chunk, width]
    spans = list(groups([offset + 1 for offset in offsets]))  # the response tokens of each pack
    packs = [Part([(0, end + 1) for end in offsets[span]], tips.rows[span], offsets[span]) for span in spans]
    first = min((crossing.first for crossing in crossings), default=cut)
    # For each crossing and pack: [sources, cotangents].
    sums = [[last.new_zeros(len(crossing.moved[0]), pack.count) for pack in packs] for crossing in crossings]
    layers = list(enumerate(zip(body.layers, primal.keys, primal.values, strict=True)))
    for i, (layer, key, value) in reversed(layers):
        if i < len(layers) - 1:
            _through_mlp(layer, streams[2 * i + 1], packs, lrp)
        norm = Norm(layer.input_layernorm, streams[2 * i], lrp)
        maps = Attention(layer.self_attn, norm.y, key[0], value[0], cos, sin, lrp)
        for j, pack in enumerate(packs):
            # dy: [rows, width]; at_cut: [cotangents, positions from first to the cut x (keys and values)]
            dy, at_cut = _through_attention(maps, pack, first)
            _add(pack, dy, norm)
            for pack_sums, crossing in zip(sums, crossings, strict=True):
                # The same layout, from the first source of the crossing on: the last entries of at_cut.
                tangents = crossing.moved[i]  # [sources, positions x (keys and values)]
                pack_sums[j].addmm_(tangents, at_cut[:, -tangents.shape[1] :].T)
    out = last.new_zeros(len(columns), length - cut, last.shape[-1])  # [chunk, positions, width]
    for span, pack in zip(spans, packs, strict=True):
        pack.onto(out[span].transpose(0, 1), pack.rows)
    along = [torch.cat(pack_sums, dim=1) for pack_sums in sums]  # [sources, chunk] for each crossing
    return out, torch.cat(along) if along else last.new_zeros(0, len(columns))


def entrances(model: PreTrainedModel) -> list[nn.Module]:
    """List the modules whose inputs :func:`llama_cotangents` needs: two norms per layer, and the last norm.

    Args:
        model: Model that :func:`~shiftlens.attribution.llama.layer.takes` accepts.
    """
    body = body_of(model)
    norms = [norm for layer in body.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    return [*norms, body.norm]


def _through_mlp(layer: Any, x: Tensor, packs: list[Part], lrp: bool) -> None:
    """Carry packs back, in place, through the MLP and its norm, whose input was x, [positions, width]."""
    mlp, norm = layer.mlp, Norm(layer.post_attention_layernorm, x, lrp)
    primal = gates(mlp, norm.y, lrp)  # [positions, inner] each
    for pack in packs:
        inner = product(pack.rows, mlp.down_proj.weight)  # [rows, inner]; dz at first and du after the loop
        gate = torch.empty_like(inner)  # [rows, inner], dg
        # Common block: [offsets, cotangents, inner]; other rows: [further rows, 1, inner].
        for (dg, at), (dz, _) in zip(pack.pieces(gate), pack.pieces(inner), strict=True):
            torch.mul(dz, primal.by_gate[at][:, None], out=dg)
            dz.mul_(primal.by_up[at][:, None])
        dy = product(gate, mlp.gate_proj.weight)  # [rows, width]
        _add(pack, add_product(dy, inner, mlp.up_proj.weight), norm)


def _add(pack: Part, dy: Tensor, norm: Norm) -> None:
    """Carry dy, [rows, width], back through a norm and add the result to the pack; overwrites dy."""
    for block_dy, at in pack.pieces(dy):
        norm.cotangent(block_dy, at)
    pack.rows += dy


def _through_attention(maps: Attention, pack: Part, first: int) -> tuple[Tensor, Tensor]:
    """Carry a pack back through the attention.

    Args:
        maps: Primal values of the attention; its window starts at the cut.
        pack: Cotangents of the attention's output.
        first: First position before the cut whose keys and values need cotangents.

    Returns:
        Cotangents of the attention's input, [rows, width]; and those of the keys and values from ``first`` up to
        the cut, laid out by :func:`joined`.
    """
    module, length, count = maps.module, pack.high, pack.count  # positions: the first `length` from the cut on
    groups, _, head = maps.key.shape
    early = maps.prefix - first  # keys before the cut that need cotangents
    scaled = maps.key * (module.scaling * maps.to_logits)  # [groups, keys, head]
    # [rows, groups, repeat, head]
    d_out = product(pack.rows, module.o_proj.weight).view(len(pack.rows), groups, -1, head)
    repeat = d_out.shape[2]
    # In these layouts each product below is one matrix product per group.
    grid = d_out.new_zeros(groups, length, repeat, count, head)  # [groups, positions, repeat, cotangents, head]
    pack.onto(grid.permute(1, 3, 0, 2, 4), d_out)
    dq = torch.empty_like(grid)  # [groups, positions, repeat, cotangents, head]
    dk = grid.new_zeros(groups, count, early + length, head)  # [groups, cotangents, keys from first, head]
    dv = grid.new_zeros(groups, early + length, count * head)  # [groups, keys from first, cotangents x head]
    block = BLOCK.get(pack.rows.device.type, BLOCK["cuda"])
    for low in range(0, length, block):
        high = min(low + block, length)
        # Axes: queries = (high - low) x repeat; seen = keys up to the last query; wanted = those from first on.
        seen, wanted = maps.prefix + high, early + high
        d_out = grid[:, low:high].flatten(1, 3)  # [groups, queries x cotangents, head]
        weights = maps.weights[:, low:high, :, :seen].flatten(1, 2)  # [groups, queries, seen]
        # [groups, queries, head] each
        out, query = maps.out[:, low:high].flatten(1, 2), maps.query[:, low:high].flatten(1, 2)
        # <dO, O>, the sum of P * dP over the keys: [groups, queries, cotangents, 1]
        along = (d_out.view(groups, -1, count, head) @ out[..., None]).view(groups, -1, count, 1)
        ds = (d_out @ maps.value[:, :seen].mT).view(groups, -1, count, seen)
        ds.sub_(along).mul_(weights[:, :, None])  # [groups, queries, cotangents, seen]
        dq[:, low:high] = (ds.view(groups, -1, seen) @ scaled[:, :seen]).view(groups, -1, repeat, count, head)
        # [groups, cotangents x wanted, head]
        block_dk = ds[..., first:].reshape(groups, -1, count * wanted).mT @ query
        dk[:, :, :wanted].add_(block_dk.view(groups, count, wanted, head), alpha=maps.to_logits)
        block_dv = weights[..., first:].mT @ d_out.view(groups, -1, count * head)
        dv[:, :wanted].add_(block_dv, alpha=maps.to_values)
    dv = dv.view(groups, early + length, count, head)  # [groups, keys from first, cotangents, head]
    dq = maps.rotate_back(dq.permute(1, 3, 0, 2, 4))  # [positions, cotangents, groups, repeat, head]
    # dK of the window itself: [positions, cotangents, groups, 1, head]
    own_dk = maps.rotate_back(dk[:, :, early:, None].permute(2, 1, 0, 3, 4))
    if maps.q_norm is not None and maps.k_norm is not None:
        own = slice(length)
        dq, own_dk = maps.q_norm.cotangent(dq.contiguous(), own), maps.k_norm.cotangent(own_dk.contiguous(), own)
    dy = product(pack.flat(dq), module.q_proj.weight)  # [rows, width]
    add_product(dy, pack.flat(own_dk), module.k_proj.weight)
    add_product(dy, pack.flat(dv[:, early:].permute(1, 2, 0, 3)), module.v_proj.weight)
    return dy, joined(dk[:, :, :early], dv[:, :early])
