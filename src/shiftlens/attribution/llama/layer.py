"""Holds the building blocks of the hand-written derivatives of LLaMA-type layers; tells which models have them.

Hand-written derivatives are faster than automatic differentiation for three reasons. All derivatives of a text
share the values of the ordinary pass (primal values), so every product with a weight, a key, a query or an
attention matrix is one large matrix product for all derivatives; keys and values are already in the cache; and the
attention weights of later positions, which are zero, are skipped.

A layer consists of RMS norms ``y = w x r`` with ``r = 1 / rms(x)``, attention ``O = P V`` with
``P = softmax(Q K^T)``, and the gated MLP ``a(g) u``. :mod:`~shiftlens.attribution.llama.tangents` differentiates
such layers forward, :mod:`~shiftlens.attribution.llama.cotangents` backward. Axes in their shape comments:

    positions    of a window: from the first source up to the cut (tangents), or from the cut on (cotangents)
    keys         all positions from the start of the text to the end of the window
    derivatives  tangents or cotangents that are computed together
    rows         token rows: one derivative at one position each
    width        size of the residual stream; inner: size inside the MLP; head: size of one attention head
    groups       key-value heads; repeat: query heads per key-value head; heads: groups x repeat

Derivatives lie at [positions, derivatives, ...], so that the primal values of a position broadcast over them.

AttnLRP (Achtibat et al. 2024, arXiv 2402.05602) replaces the derivative of each nonlinear part by another linear
map, so the same code carries it with other factors. A norm's ``r`` and the ratio ``a(g) / g`` of the activation
count as constants, and every product gives each of its two factors one half: ``a(g) u``, ``P V`` and ``Q K^T``.
Queries and keys act through P and through each other, which leaves them one quarter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shiftlens.support.libraries.torch_parts import forward_hooks
from shiftlens.support.libraries.transformers_parts import LLAMA_LAYERS, body_of, is_own_hook

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")
_ALL = slice(None)
BLOCK = {"cpu": 32, "cuda": 256}
"""Query positions per attention block. Blocks bound the memory, skip later keys and fit a CPU's cache."""


def takes(model: PreTrainedModel, length: int) -> bool:
    """Return whether the hand-written derivatives apply to a model and a text of this length.

    They apply to LLaMA, Mistral, Qwen2 and Qwen3 layers in float32 or float64 with plain linear maps (no adapter
    on top, not quantized), on one device (nothing offloaded), if no sliding window is shorter than the text and no
    user's hook changes what a layer computes. Half precision goes to generic differentiation: the difference
    ``X V - sum(X) O`` cancels, which costs a digit where numbers have 8 bits.

    Args:
        model: Causal language model.
        length: Number of ids in the text.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> takes(GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2)), 5)
        False
    """
    body = body_of(model)
    layers = getattr(body, "layers", ())
    kinds = {(parameter.device, parameter.dtype) for parameter in model.parameters()}
    if not layers or len(kinds) != 1 or model.dtype not in (torch.float32, torch.float64):
        return False
    if model.device.type == "meta":
        return False
    plain = all(type(layer) in LLAMA_LAYERS and _is_plain(layer, length) for layer in layers)
    return plain and not any(map(_is_hooked, [*layers, body.norm]))


def _is_hooked(root: nn.Module) -> bool:
    """Return whether a module or one of its submodules has a hook that could change what the module computes."""
    return any(not is_own_hook(hook) for module in root.modules() for hook in forward_hooks(module))


def _is_plain(layer: Any, length: int) -> bool:
    """Return whether a layer has only plain linear maps and no sliding window shorter than the text."""
    attention = layer.self_attn
    linear = [getattr(attention, name) for name in _ATTENTION] + [getattr(layer.mlp, name) for name in _MLP]
    # Mistral's window is in the configuration only; Qwen has one per layer, which overrides the configuration's.
    window = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))
    return all(type(module) is nn.Linear for module in linear) and (window is None or window >= length)


def rotations(body: Any, x: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Compute the cosines and sines of the rotary embedding for consecutive positions.

    Args:
        body: Model without its output layer.
        x: [positions, width] residual stream; sets the number of positions, the dtype and the device.
        start: First position.

    Returns:
        Cosines and sines, [positions, head] each.
    """
    position = torch.arange(start, start + len(x), device=x.device)[None]  # [1, positions]
    cos, sin = body.rotary_emb(x[None], position_ids=position)  # [1, positions, head] each
    return cos[0], sin[0]


def joined(keys: Tensor, values: Tensor) -> Tensor:
    """Flatten the derivatives of keys and values into one vector per derivative.

    An inner product of two such vectors is the sum ``<dK, d f / d K> + <dV, d f / d V>`` of one layer.

    Args:
        keys: [groups, derivatives, positions, head] derivatives of the keys.
        values: [groups, positions, derivatives, head] derivatives of the values, perhaps with another head size.

    Returns:
        [derivatives, positions x (keys and values)]; position by position, so the last ones are the last entries.
    """
    # [derivatives, positions, groups x head] each
    both = (keys.permute(1, 2, 0, 3).flatten(2), values.permute(2, 1, 0, 3).flatten(2))
    return torch.cat(both, dim=-1).flatten(1)


class Norm:
    """Value ``y`` of an RMS norm at its input x, and the derivatives in both directions.

    Args:
        norm: RMS norm module.
        x: [positions, ..., width] input of the norm.
        lrp: Whether r counts as a constant, so that the terms with x^ below are left out.
    """

    def __init__(self, norm: Any, x: Tensor, lrp: bool) -> None:
        self.lrp = lrp
        r = torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)  # [positions, ..., 1]
        # hat, gain, y: [positions, ..., width]
        self.hat = x * r
        self.gain = norm.weight * r
        self.y = norm.weight * self.hat

    def tangent(self, dx: Tensor, at: slice | Tensor, out: Tensor | None = None) -> Tensor:
        """Compute ``w r (dx - x^ <x^, dx> / width)``, the tangents of the norm's output.

        Args:
            dx: [positions, tangents, ..., width] tangents of the norm's input.
            at: Positions of dx within x.
            out: Tensor of dx's shape for the result; by default a new one.
        """
        hat, gain = self.hat[at][:, None], self.gain[at][:, None]  # [positions, 1, ..., width]
        if self.lrp:
            return torch.mul(dx, gain, out=out)
        return torch.addcmul(dx, hat, _along(dx, hat), value=-1 / dx.shape[-1], out=out).mul_(gain)

    def cotangent(self, dy: Tensor, at: slice | Tensor = _ALL) -> Tensor:
        """Compute ``u - x^ <x^, u> / width``, ``u = w r dy``, the cotangents of the norm's input; overwrites dy.

        Args:
            dy: [positions, cotangents, ..., width] cotangents of the norm's output.
            at: Positions of dy within x; by default all of them.
        """
        # hat: [positions, 1, ..., width]; u: [positions, cotangents, ..., width]
        hat, u = self.hat[at][:, None], dy.mul_(self.gain[at][:, None])
        return u if self.lrp else u.addcmul_(hat, _along(u, hat), value=-1 / u.shape[-1])


def _along(x: Tensor, hat: Tensor) -> Tensor:
    """Compute the inner product of every derivative with its position's x^, [positions, derivatives, ..., 1]."""
    if x.ndim == 3:  # one matrix product per position, without a copy of x^ for each derivative
        return x @ hat.mT  # [positions, derivatives, 1]
    return (x.unsqueeze(-2) @ hat.unsqueeze(-1)).squeeze(-1)  # one norm per head: [..., groups, repeat, 1]


class Gates(NamedTuple):
    """Primal values of the gated MLP ``z = a(g) u``, [positions, inner] each.

    Args:
        by_gate: Derivative of z with respect to g, ``a'(g) u``; under LRP ``a(g) / g u / 2``.
        by_up: Derivative of z with respect to u, ``a(g)``; under LRP ``a(g) / 2``.
        out: z.
    """

    by_gate: Tensor
    by_up: Tensor
    out: Tensor


def gates(mlp: Any, y: Tensor, lrp: bool) -> Gates:
    """Compute the primal values of a gated MLP.

    Args:
        mlp: MLP module.
        y: [positions, width] input of the MLP.
        lrp: Whether to pass relevance by the rules of AttnLRP.
    """
    gate, up = mlp.gate_proj(y), mlp.up_proj(y)  # [positions, inner] each
    with torch.enable_grad():
        leaf = gate.detach().requires_grad_()
        active = mlp.act_fn(leaf)
        (slope,) = torch.autograd.grad(active.sum(), leaf)
    active = active.detach()
    if lrp:  # at g = 0 the ratio a(g) / g is a'(0)
        return Gates(torch.where(gate == 0, slope, active / gate) * up / 2, active / 2, active * up)
    return Gates(slope * up, active, active * up)


class Attention:
    """Primal values of causal attention, for the positions of a window at the end of the keys.

    Args:
        module: Attention module.
        y: [positions, width] input of the attention.
        key: [groups, keys, head] rotated keys.
        value: [groups, keys, head] values.
        cos: [positions, head] cosines from :func:`rotations`; ``sin`` likewise.
        lrp: Whether to pass relevance by the rules of AttnLRP.

    Attributes:
        to_logits: Factor of derivatives of Q K^T that arrive from Q, or from K: 1; under LRP 1/4.
        to_values: Factor of derivatives that arrive from V: 1; under LRP 1/2.
    """

    def __init__(
        self, module: Any, y: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor, lrp: bool
    ) -> None:
        self.module, self.key, self.value, self.cos, self.sin = module, key, value, cos, sin
        self.to_logits, self.to_values = (0.25, 0.5) if lrp else (1.0, 1.0)
        groups, total, head = key.shape
        self.prefix = total - len(y)  # keys before the window
        q = module.q_proj(y).view(len(y), groups, -1, head)  # [positions, groups, repeat, head]
        self.k_norm = self.q_norm = None
        if hasattr(module, "q_norm"):  # Qwen3 normalizes the query and key of each head
            self.q_norm = Norm(module.q_norm, q, lrp)
            self.k_norm = Norm(module.k_norm, module.k_proj(y).view(len(y), groups, 1, head), lrp)
            q = self.q_norm.y
        # Q is scaled here; for derivatives of Q the keys are scaled instead.
        self.query = self.rotate(q).permute(1, 0, 2, 3) * module.scaling  # [groups, positions, repeat, head]
        # [positions, keys], true where a key lies after the query
        future = torch.ones(len(y), total, dtype=torch.bool, device=y.device).triu_(self.prefix + 1)
        logits = self.query.flatten(1, 2) @ key.mT  # [groups, positions x repeat, keys]
        logits = logits.view(groups, len(y), -1, total).masked_fill_(future[:, None], float("-inf"))
        self.weights = logits.softmax(-1)  # [groups, positions, repeat, keys]
        self.out = (self.weights.flatten(1, 2) @ value).view_as(self.query)  # [groups, positions, repeat, head]

    @property
    def mixed(self) -> Tensor:
        """Input of the output projection, [positions, heads x head]."""
        return self.out.transpose(0, 1).flatten(1)

    def rotate(self, x: Tensor) -> Tensor:
        """Apply the rotary embedding to x, [positions, ..., head], at the last positions of the window."""
        low, high = self.sin[-len(x) :].chunk(2, dim=-1)  # [positions, head / 2] each
        return _turned(x, self.cos[-len(x) :], -low, high)

    def rotate_back(self, x: Tensor) -> Tensor:
        """Apply the transposed rotation to x, [positions, ..., head], at the first positions of the window."""
        low, high = self.sin[: len(x)].chunk(2, dim=-1)  # [positions, head / 2] each
        return _turned(x, self.cos[: len(x)], high, -low)


def _turned(x: Tensor, cos: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Compute ``[x1, x2] cos + [x2 first, x1 second]``, where x1 and x2 are the halves of each head.

    Shapes: x [positions, ..., head], cos [positions, head], first and second [positions, head / 2].
    """
    cos, first, second = (
        table.view(len(x), *(1,) * (x.ndim - 2), table.shape[-1]) for table in (cos, first, second)
    )  # [positions, 1, ..., head], and head / 2 for the last two
    out = x * cos  # [positions, ..., head]
    x1, x2 = x.chunk(2, dim=-1)  # [positions, ..., head / 2] each
    out1, out2 = out.chunk(2, dim=-1)  # views of out
    out1.addcmul_(x2, first)
    out2.addcmul_(x1, second)
    return out
