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

import logging
import weakref
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shiftlens.support.libraries.torch_parts import forward_hooks
from shiftlens.support.libraries.transformers_parts import LLAMA_LAYERS, body_of, is_own_hook

log = logging.getLogger(__name__)

_LINEAR = attrgetter(
    *(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))
)
_FURTHER = attrgetter(
    "self_attn.scaling", "mlp.act_fn",
    *(f"{norm}.{part}" for norm in ("input_layernorm", "post_attention_layernorm")
      for part in ("weight", "variance_epsilon")),
)  # fmt: skip
"""Attributes of a layer that the derivatives read, apart from its linear maps."""
_TOLD: weakref.WeakSet[PreTrainedModel] = weakref.WeakSet()
"""Quantized models of which the log says that they take generic differentiation."""
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def takes(model: PreTrainedModel, length: int) -> bool:
    """Return whether the hand-written derivatives apply to a model and a text of this length.

    They apply to LLaMA, Mistral, Qwen2 and Qwen3 layers in one floating-point dtype with plain linear maps (no
    adapter on top, not quantized), on one device (nothing offloaded), if no sliding window is shorter than the
    text and no user's hook changes what a layer computes. The log says once of a quantized model that it takes
    generic differentiation.

    Args:
        model: Causal language model.
        length: Number of ids in the text.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> takes(GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2)), 5)
        False
    """
    return model.device.type != "meta" and written_out(model, length)


def written_out(model: PreTrainedModel, length: int) -> bool:
    """Return what :func:`takes` does, also for a model whose weights are on the device ``meta``, without values.

    Args:
        model: Causal language model.
        length: Number of ids in the text.
    """
    body = body_of(model)
    layers = getattr(body, "layers", ())
    if getattr(model, "hf_quantizer", None) is not None:
        if model not in _TOLD:
            log.info("quantized weights have no hand-written derivatives; taking generic ones, which are slower")
            _TOLD.add(model)
        return False
    kinds = {(parameter.device, parameter.dtype) for parameter in model.parameters()}
    if not layers or len(kinds) != 1 or model.dtype not in _DTYPES:
        return False
    plain = all(type(layer) in LLAMA_LAYERS and _is_plain(layer, length) for layer in layers)
    return plain and not any(map(_is_hooked, [*layers, body.norm]))


def _is_hooked(root: nn.Module) -> bool:
    """Return whether a module or one of its submodules has a hook that could change what the module computes."""
    return any(not is_own_hook(hook) for module in root.modules() for hook in forward_hooks(module))


def _is_plain(layer: Any, length: int) -> bool:
    """Return whether a layer has all its parts, plain linear maps, and no sliding window shorter than the text."""
    try:
        linear, _ = _LINEAR(layer), _FURTHER(layer)
    except AttributeError:  # another version of the library, or a changed layer
        return False
    attention = layer.self_attn
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
