"""The tangents of :mod:`shiftlens.attribution.forward`, written out for layers of the LLaMA kind.

What a generic Jacobian-vector product cannot know: all tangents share the primal values, so every product
with a weight, a key, a query or an attention matrix is one large matrix product for the whole batch; keys
and values are already in the cache; and the causal half of the attention matrices is zero.

Tangents are laid out [position, tangent, width], so that a position's primal values broadcast over them.
Per layer, with the RMS norm ``y = w x r`` (r = 1 / rms(x)), attention ``O = P V``, ``P = softmax(Q K^T)``
and the gated MLP ``a(g) u``:

    dy = w r (dx - x^ <x^, dx> / width),  x^ = x r
    dO = X V - sum(X) O + P dV,           X = P * (dQ K^T + Q dK^T)
    d(a(g) u) = a'(g) u dg + a(g) du
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, rotate_half
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

if TYPE_CHECKING:
    from shiftlens.attribution.forward import Primal

_LAYERS = (LlamaDecoderLayer, MistralDecoderLayer, Qwen2DecoderLayer, Qwen3DecoderLayer)
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")
_PART = 8  # tangents per matrix product: large enough for full speed, small enough to stay in cache
_BLOCK = 128  # query positions per attention block: bounds memory, skips keys that lie in the future


def takes(model: PreTrainedModel, length: int) -> bool:
    """Whether :func:`llama_tangents` can take this model at this length.

    It can for LLaMA, Mistral, Qwen2 and Qwen3 layers with plain linear maps (no adapter on top, not
    quantized) on one device, where no sliding window is shorter than the text. Half precision is left to
    the generic path: ``X V - sum(X) O`` cancels, and rounded to 8 bits that costs a digit.

    Args:
        model: a causal language model.
        length: number of ids.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> takes(GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2)), 5)
        False
    """
    layers = getattr(getattr(model, model.base_model_prefix), "layers", ())
    places = {(parameter.device, parameter.dtype) for parameter in model.parameters()}
    if not layers or len(places) != 1 or model.dtype not in (torch.float32, torch.float64):
        return False
    return all(type(layer) in _LAYERS and _is_plain(layer, length) for layer in layers)


def _is_plain(layer: Any, length: int) -> bool:
    attention = layer.self_attn
    linear = [getattr(attention, name) for name in _ATTENTION] + [getattr(layer.mlp, name) for name in _MLP]
    # Mistral keeps its window in the configuration only, Qwen per layer (and may not use the configuration's).
    window = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))
    return all(type(module) is nn.Linear for module in linear) and (window is None or window >= length)


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
    position = torch.arange(start, len(primal.embeddings), device=x.device)[None]
    cos, sin = (table[0] for table in body.rotary_emb(x[None], position_ids=position))
    # Each part begins at its own first source; before that its tangents are zero.
    parts = []
    for i in range(0, len(sources), _PART):
        some = sources[i : i + _PART]
        part = x.new_zeros(len(primal.embeddings) - some[0], len(some), x.shape[-1])
        for column, source in enumerate(some):
            part[source - some[0], column] = primal.embeddings[source]
        parts.append(part)

    for layer, key, value in zip(body.layers, primal.keys, primal.values, strict=True):
        x = _layer(layer, x, parts, key[0], value[0], cos, sin)
    norm = _Norm(body.norm, x)
    out = x.new_zeros(len(sources), *x.shape)
    for i, part in enumerate(parts):
        out[i * _PART : i * _PART + part.shape[1], -len(part) :] = norm.tangent(part).transpose(0, 1)
    return out


def _layer(
    layer: Any, x: Tensor, parts: list[Tensor], key: Tensor, value: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """Moves `parts` through one layer in place; returns the layer's own output, [position, width]."""
    attention, mlp = layer.self_attn, layer.mlp
    norm = _Norm(layer.input_layernorm, x)
    maps = _Attention(attention, norm.y, key, value, cos, sin)
    for part in parts:
        mixed = maps.tangent(norm.tangent(part))
        part.view(-1, part.shape[-1]).addmm_(mixed, attention.o_proj.weight.T)
    x = x + attention.o_proj(maps.mixed)

    norm = _Norm(layer.post_attention_layernorm, x)
    gate, up = mlp.gate_proj(norm.y), mlp.up_proj(norm.y)
    with torch.enable_grad():
        leaf = gate.detach().requires_grad_()
        active = mlp.act_fn(leaf)
        (slope,) = torch.autograd.grad(active.sum(), leaf)
    active, slope = active.detach()[:, None], (slope * up)[:, None]
    for part in parts:
        moved, at = norm.tangent(part), len(part)
        inner = nn.functional.linear(moved, mlp.gate_proj.weight).mul_(slope[-at:])
        inner.addcmul_(nn.functional.linear(moved, mlp.up_proj.weight), active[-at:])
        part.view(-1, part.shape[-1]).addmm_(inner.flatten(0, 1), mlp.down_proj.weight.T)
    return x + mlp.down_proj(active[:, 0] * up)


class _Norm:
    """An RMS norm at x, [position, ..., width]: its value ``y`` and its tangents."""

    def __init__(self, norm: Any, x: Tensor) -> None:
        r = torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)
        self.hat = x * r
        self.gain = norm.weight * r
        self.y = norm.weight * self.hat

    def tangent(self, dx: Tensor) -> Tensor:
        """[position, tangent, ..., width]; positions are the last ones of x."""
        hat, gain = self.hat[-len(dx) :, None], self.gain[-len(dx) :, None]
        along = (dx.unsqueeze(-2) @ hat.unsqueeze(-1)).squeeze(-1)
        return torch.addcmul(dx, hat, along, value=-1 / dx.shape[-1]).mul_(gain)


class _Attention:
    """Causal attention of the last positions x over all keys; heads are [group, repeat] (repeat 1: no GQA).

    Args:
        module: the attention module.
        y: [position, width] its input.
        key: [group, all positions, head] rotated keys; ``value`` likewise.
        cos: [position, head] rotation of x; ``sin`` likewise.
    """

    def __init__(self, module: Any, y: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor) -> None:
        self.module, self.key, self.value, self.cos, self.sin = module, key, value, cos, sin
        groups, total, head = key.shape
        self.prefix = total - len(y)
        q = module.q_proj(y).view(len(y), groups, -1, head)
        self.k_norm = self.q_norm = None
        if hasattr(module, "q_norm"):  # Qwen3 norms each head's query and key
            self.q_norm = _Norm(module.q_norm, q)
            self.k_norm = _Norm(module.k_norm, module.k_proj(y).view(len(y), groups, 1, head))
            q = self.q_norm.y
        # The scale goes into Q and into dQ, the only places where it is needed.
        self.query = self._rotate(q).permute(1, 0, 2, 3) * module.scaling  # [group, position, repeat, head]
        future = torch.ones(len(y), total, dtype=torch.bool, device=y.device).triu_(self.prefix + 1)
        logits = self.query.flatten(1, 2) @ key.mT
        logits = logits.view(groups, len(y), -1, total).masked_fill_(future[:, None], float("-inf"))
        self.weights = logits.softmax(-1)  # [group, position, repeat, all positions]
        self.out = (self.weights.flatten(1, 2) @ value).view_as(self.query)
        self.mixed = self.out.transpose(0, 1).flatten(1)  # [position, width], what enters o_proj

    def _rotate(self, x: Tensor) -> Tensor:
        """Rotary embedding of the last positions; x [position, ..., head]."""
        shape = (len(x), *(1,) * (x.ndim - 2), x.shape[-1])
        return x * self.cos[-len(x) :].view(shape) + rotate_half(x) * self.sin[-len(x) :].view(shape)

    def tangent(self, dy: Tensor) -> Tensor:
        """Tangents of what enters o_proj, [position x tangent, width], for dy [position, tangent, width]."""
        module, (length, tangents, _) = self.module, dy.shape
        groups, total, head = self.key.shape
        dq, dk, dv = (
            nn.functional.linear(dy, linear.weight).view(length, tangents, groups, -1, head)
            for linear in (module.q_proj, module.k_proj, module.v_proj)
        )
        if self.q_norm is not None and self.k_norm is not None:
            dq, dk = self.q_norm.tangent(dq), self.k_norm.tangent(dk)
        # Layouts that make each product below one matrix product per group.
        dq = (self._rotate(dq) * module.scaling).permute(2, 0, 3, 1, 4).contiguous()  # g, position, r, tangent, h
        dk = self._rotate(dk)[:, :, :, 0].permute(2, 1, 0, 3).contiguous()  # group, tangent, position, head
        dv = dv[:, :, :, 0].permute(2, 0, 1, 3).contiguous()  # group, position, tangent, head
        skipped = self.query.shape[1] - length
        before = self.prefix + skipped  # keys without a tangent
        mixed = dy.new_empty(length, tangents, groups, dq.shape[2], head)
        for low in range(0, length, _BLOCK):
            high = min(low + _BLOCK, length)
            rows = slice(skipped + low, skipped + high)
            query, weights = self.query[:, rows].flatten(1, 2), self.weights[:, rows].flatten(1, 2)
            moved = dq[:, low:high].flatten(1, 3)
            # Keys that move: one product for dQ K^T, a second added onto it for Q dK^T.
            x = moved @ self.key[:, before : before + high].mT
            x = x.view(groups, -1, tangents * high)
            x.baddbmm_(query, dk[:, :, :high].flatten(1, 2).mT)
            recent = weights[:, :, None, before : before + high]
            x = x.view(groups, -1, tangents, high).mul_(recent)
            sums, x = x.sum(-1), x.flatten(1, 2) @ self.value[:, before : before + high]
            x = x.view(groups, -1, tangents * head)
            x.baddbmm_(recent[:, :, 0], dv[:, :high].flatten(2))
            x = x.view(groups, -1, tangents, head)
            if before:  # keys that stay: dK = dV = 0
                y = (moved @ self.key[:, :before].mT).view(groups, -1, tangents, before)
                y.mul_(weights[:, :, None, :before])
                sums += y.sum(-1)
                x += (y.flatten(1, 2) @ self.value[:, :before]).view_as(x)
            x -= sums[..., None] * self.out[:, rows].flatten(1, 2)[:, :, None]
            x = x.view(groups, high - low, -1, tangents, head)
            mixed[low:high] = x.permute(1, 3, 0, 2, 4)
        return mixed.view(length * tangents, -1)
