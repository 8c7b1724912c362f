"""A layer of the LLaMA kind written out: which models have such layers, and what their derivatives need of them.

What generic differentiation cannot know: all derivatives of a text share its primal values, so every product with
a weight, a key, a query or an attention matrix is one large matrix product for the whole batch; keys and values
are already in the cache; and the causal half of the attention matrices is zero.

Derivatives are laid out [position, derivative, width], so that a position's primal values broadcast over them.
Per layer, with the RMS norm ``y = w x r`` (r = 1 / rms(x)), attention ``O = P V``, ``P = softmax(Q K^T)`` and the
gated MLP ``a(g) u``; forward in :mod:`~shiftlens.attribution.llama.tangents`, backward in
:mod:`~shiftlens.attribution.llama.cotangents`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

_LAYERS = (LlamaDecoderLayer, MistralDecoderLayer, Qwen2DecoderLayer, Qwen3DecoderLayer)
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")
_ALL = slice(None)
BLOCK = {"cpu": 32, "cuda": 256}
"""Query positions per attention block: bounds memory, skips keys in the future, stays in a CPU's cache."""


def takes(model: PreTrainedModel, length: int) -> bool:
    """Whether a model's layers are written out here, at this length.

    LLaMA, Mistral, Qwen2 and Qwen3 layers are, with plain linear maps (no adapter on top, not
    quantized) on one device (none offloaded), where no sliding window is shorter than the text and no hook
    of a user's changes what a layer computes. Half precision is left to the generic paths:
    ``X V - sum(X) O`` cancels, and rounded to 8 bits that costs a digit.

    Args:
        model: a causal language model.
        length: number of ids.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> takes(GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2)), 5)
        False
    """
    body = getattr(model, model.base_model_prefix)
    layers = getattr(body, "layers", ())
    places = {(parameter.device, parameter.dtype) for parameter in model.parameters()}
    if not layers or len(places) != 1 or model.dtype not in (torch.float32, torch.float64):
        return False
    if model.device.type == "meta":
        return False
    plain = all(type(layer) in _LAYERS and _is_plain(layer, length) for layer in layers)
    return plain and not any(map(_is_hooked, [*layers, body.norm]))


def _is_hooked(part: nn.Module) -> bool:
    hooks = [hook for m in part.modules() for hook in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]
    # The library leaves hooks that record outputs, and change nothing.
    return any(not (getattr(hook, "__module__", None) or "").startswith("transformers.") for hook in hooks)


def _is_plain(layer: Any, length: int) -> bool:
    attention = layer.self_attn
    linear = [getattr(attention, name) for name in _ATTENTION] + [getattr(layer.mlp, name) for name in _MLP]
    # Mistral keeps its window in the configuration only, Qwen per layer (and may not use the configuration's).
    window = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))
    return all(type(module) is nn.Linear for module in linear) and (window is None or window >= length)


def rotations(body: Any, x: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the positions from ``start`` on, [position, head] each.

    Args:
        body: the model without its output layer.
        x: [position, width] the stream there.
        start: first position.
    """
    position = torch.arange(start, start + len(x), device=x.device)[None]
    cos, sin = body.rotary_emb(x[None], position_ids=position)
    return cos[0], sin[0]


def joined(keys: Tensor, values: Tensor) -> Tensor:
    """Derivatives of keys and of values side by side, [derivative, position x (keys and values)].

    Args:
        keys: [group, derivative, position, head].
        values: [group, position, derivative, head], whose heads may have another size.
    """
    both = (keys.permute(1, 2, 0, 3).flatten(2), values.permute(2, 1, 0, 3).flatten(2))
    return torch.cat(both, dim=-1).flatten(1)


class Norm:
    """An RMS norm at x, [position, ..., width]: its value ``y``, and both derivatives.

    Args:
        norm: the module.
        x: what enters it.
    """

    def __init__(self, norm: Any, x: Tensor) -> None:
        r = torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)
        self.hat = x * r
        self.gain = norm.weight * r
        self.y = norm.weight * self.hat

    def tangent(self, dx: Tensor, at: slice | Tensor, out: Tensor | None = None) -> Tensor:
        """``w r (dx - x^ <x^, dx> / width)``, [position, tangent, ..., width].

        Args:
            dx: what arrives.
            at: its positions.
            out: where to put it.
        """
        hat, gain = self.hat[at][:, None], self.gain[at][:, None]
        return torch.addcmul(dx, hat, _along(dx, hat), value=-1 / dx.shape[-1], out=out).mul_(gain)

    def cotangent(self, dy: Tensor, at: slice | Tensor = _ALL) -> Tensor:
        """``u - x^ <x^, u> / width`` with ``u = w r dy``, in place of dy, [position, cotangent, ..., width].

        Args:
            dy: what arrives.
            at: its positions; by default all of x.
        """
        hat, u = self.hat[at][:, None], dy.mul_(self.gain[at][:, None])
        return u.addcmul_(hat, _along(u, hat), value=-1 / u.shape[-1])


def _along(x: Tensor, hat: Tensor) -> Tensor:
    """Inner product of every derivative with its position's x^."""
    if x.ndim == 3:  # one product a position, without a copy of x^ for each derivative
        return x @ hat.mT
    return (x.unsqueeze(-2) @ hat.unsqueeze(-1)).squeeze(-1)


class Gates(NamedTuple):
    """The gated MLP ``a(g) u`` of some positions, [position, inner] each.

    Args:
        active: a(g).
        slope: a'(g) u.
        up: u.
    """

    active: Tensor
    slope: Tensor
    up: Tensor


def gates(mlp: Any, y: Tensor) -> Gates:
    """The primal values of a gated MLP.

    Args:
        mlp: the module.
        y: [position, width] what enters it.
    """
    gate, up = mlp.gate_proj(y), mlp.up_proj(y)
    with torch.enable_grad():
        leaf = gate.detach().requires_grad_()
        active = mlp.act_fn(leaf)
        (slope,) = torch.autograd.grad(active.sum(), leaf)
    return Gates(active.detach(), slope * up, up)


class Attention:
    """Causal attention of the last positions over all keys; heads are [group, repeat] (repeat 1: no GQA).

    Args:
        module: the attention module.
        y: [position, width] its input.
        key: [group, all positions, head] rotated keys; ``value`` likewise.
        cos: [position, head] rotation of y; ``sin`` likewise.
    """

    def __init__(self, module: Any, y: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor) -> None:
        self.module, self.key, self.value, self.cos, self.sin = module, key, value, cos, sin
        groups, total, head = key.shape
        self.prefix = total - len(y)
        q = module.q_proj(y).view(len(y), groups, -1, head)
        self.k_norm = self.q_norm = None
        if hasattr(module, "q_norm"):  # Qwen3 norms each head's query and key
            self.q_norm = Norm(module.q_norm, q)
            self.k_norm = Norm(module.k_norm, module.k_proj(y).view(len(y), groups, 1, head))
            q = self.q_norm.y
        # The scale goes into Q; a derivative of Q meets it in the keys.
        self.query = self.rotate(q).permute(1, 0, 2, 3) * module.scaling  # [group, position, repeat, head]
        future = torch.ones(len(y), total, dtype=torch.bool, device=y.device).triu_(self.prefix + 1)
        logits = self.query.flatten(1, 2) @ key.mT
        logits = logits.view(groups, len(y), -1, total).masked_fill_(future[:, None], float("-inf"))
        self.weights = logits.softmax(-1)  # [group, position, repeat, all positions]
        self.out = (self.weights.flatten(1, 2) @ value).view_as(self.query)

    @property
    def mixed(self) -> Tensor:
        """[position, width] what enters the output projection."""
        return self.out.transpose(0, 1).flatten(1)

    def rotate(self, x: Tensor) -> Tensor:
        """Rotary embedding of the last positions; x [position, ..., head]."""
        low, high = self.sin[-len(x) :].chunk(2, dim=-1)
        return _turned(x, self.cos[-len(x) :], -low, high)

    def rotate_back(self, x: Tensor) -> Tensor:
        """The transpose of :meth:`rotate`, for the first positions."""
        low, high = self.sin[: len(x)].chunk(2, dim=-1)
        return _turned(x, self.cos[: len(x)], high, -low)


def _turned(x: Tensor, cos: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """``[x1, x2] cos + [x2 first, x1 second]``; x [position, ..., head], the others [position, (half) head]."""
    cos, first, second = (
        table.view(len(x), *(1,) * (x.ndim - 2), table.shape[-1]) for table in (cos, first, second)
    )
    out = x * cos
    x1, x2 = x.chunk(2, dim=-1)
    out1, out2 = out.chunk(2, dim=-1)
    out1.addcmul_(x2, first)
    out2.addcmul_(x1, second)
    return out
