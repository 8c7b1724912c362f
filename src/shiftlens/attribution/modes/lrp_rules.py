"""Makes a model pass relevance by the rules of AttnLRP wherever it is differentiated, for a while.

Layer-wise relevance propagation (LRP) assigns each output of an operation to its inputs by a local rule. The rules
of AttnLRP (Achtibat et al. 2024, arXiv 2402.05602) are those of linear maps once a few factors are held constant:

- norms: the denominator is constant; centring and gain are linear,
- activations ``a(x)`` and soft caps: the ratio ``a(x) / x`` is constant,
- products: shared equally by both factors, in the gated feed-forward layer, between attention weights and values,
  and between queries and keys,
- softmax: its Jacobian; linear maps, embeddings and sums: as they are. Biases keep what is theirs.

So hooks that replace derivatives by those of the linear maps make any automatic differentiation of the model
compute relevances, in forward and in reverse mode.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from shiftlens.attribution.modes.local_rules import normed, shared, with_ratio
from shiftlens.attribution.modes.plain_attention import attend_plainly, attention_replaced, plain_attention
from shiftlens.attribution.variant import Variant
from shiftlens.errors import ShiftLensError, SourceError
from shiftlens.models.families.norms import is_centred
from shiftlens.support.libraries.transformers_parts import Conv1D, register_attention

LRP_FAMILIES = (
    "llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "gemma2", "gemma3_text", "phi3", "gpt2", "gpt_neox",
    "opt",
)  # fmt: skip
"""Model types whose layers compute nothing that the rules leave out, beside the modules they consist of."""
_GATED_OUT = "down_proj"
"""Name of the map that takes the product of the gate and the up projection, in each of these with a gate."""
_LINEAR = (nn.Linear, Conv1D, nn.Embedding, nn.Dropout, nn.Identity)
_NEAR_ZERO = -1e-20
_ATTENTION = "shiftlens_lrp"
register_attention(_ATTENTION, partial(attend_plainly, lrp=True))

_Hook = Callable[[nn.Module, tuple[Any, ...], Any], Tensor]
_FORMS: weakref.WeakKeyDictionary[nn.Module, tuple[float, bool]] = weakref.WeakKeyDictionary()
"""Norms seen so far: what is added to the weight to make the gain, and whether the norm centres."""


@contextmanager
def differentiated(model: PreTrainedModel, variant: Variant) -> Iterator[None]:
    """Switch a model to plain attention, and to the rules of AttnLRP if a variant asks for them.

    Values stay as they are, bit for bit. The model is restored on leaving, even after an error.

    Args:
        model: Causal language model.
        variant: What is carried through the model.

    Raises:
        ShiftLensError: The rules are asked for and do not cover the model, see :func:`check_rules`.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from shiftlens.support.libraries.torch_parts import forward_hooks
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8,
        ...                                      num_hidden_layers=1, num_attention_heads=2))
        >>> with differentiated(model, Variant(lrp=True)):
        ...     inside = len(forward_hooks(model.model.norm))
        >>> inside, len(forward_hooks(model.model.norm))
        (1, 0)
    """
    if not variant.lrp:
        with plain_attention(model):
            yield
        return
    hooks = _hooks(model)
    with ExitStack() as stack:
        stack.enter_context(attention_replaced(model, _ATTENTION))
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        for name, module in model.get_decoder().named_modules():
            if name.endswith(_GATED_OUT):
                stack.callback(module.register_forward_pre_hook(_share_gate).remove)
        config = model.config.get_text_config()
        if cap := getattr(config, "final_logit_softcapping", None):
            # The model caps its logits itself, without a module; so the hook of the output layer does it instead.
            stack.callback(setattr, config, "final_logit_softcapping", cap)
            config.final_logit_softcapping = None
            stack.callback(model.get_output_embeddings().register_forward_hook(partial(_cap, cap)).remove)
        yield


def check_rules(model: PreTrainedModel) -> None:
    """Refuse a model with parts for which there is no rule.

    Args:
        model: Causal language model.

    Raises:
        ShiftLensError: The model type is unknown, or a module is; the message names it.
    """
    _hooks(model)


def _hooks(model: PreTrainedModel) -> list[tuple[nn.Module, _Hook]]:
    """List the norms and activations of a model's body with the hook that applies their rule."""
    body = model.get_decoder()
    kind = body.config.model_type
    if kind not in LRP_FAMILIES:
        raise ShiftLensError(
            f"AttnLRP has no rules here for layers of the model type {kind}, only for {', '.join(LRP_FAMILIES)}; "
            "use another saliency.method"
        )
    hooks: list[tuple[nn.Module, _Hook]] = []
    for name, module in body.named_modules():
        if next(module.children(), None) is not None or isinstance(module, _LINEAR):
            continue
        if type(module).__name__.endswith("Norm"):
            hooks.append((module, _norm_hook(module, name)))
        elif type(module).__module__ in ("transformers.activations", "torch.nn.modules.activation"):
            hooks.append((module, _activation_hook(module, name)))
        elif not type(module).__name__.endswith("RotaryEmbedding"):  # makes factors that depend on positions alone
            raise _unknown(module, name)
    return hooks


def _norm_hook(module: Any, name: str) -> _Hook:
    if module not in _FORMS:
        _FORMS[module] = _form(module, name)
    offset, centred = _FORMS[module]
    gain, shift = _gain(module, offset), getattr(module, "bias", None)

    def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return normed(output, args[0], gain, shift, centred=centred)

    return hook


@torch.no_grad()
def _form(module: Any, name: str) -> tuple[float, bool]:
    """Find out, on random vectors, how a norm makes its gain of its weight, and whether it centres."""
    for offset in (0.0, 1.0):
        gain = _gain(module, offset)
        try:
            return offset, is_centred(module, name, gain.shape[-1], gain, getattr(module, "bias", None))
        except SourceError:
            continue
    raise _unknown(module, name)


def _gain(module: Any, offset: float) -> Float[Tensor, " size"]:
    """Return the gain of a norm: 1 without a weight, else the weight, or 1 more than it (Gemma)."""
    weight = getattr(module, "weight", None)
    if weight is None:
        return torch.ones(module.normalized_shape)
    return offset + weight.detach().to(torch.promote_types(weight.dtype, torch.float32))


def _activation_hook(module: nn.Module, name: str) -> _Hook:
    # From below, so that ReLU has the derivative 0 at 0, as usual.
    at_zero = float(module.forward(torch.tensor(_NEAR_ZERO))) / _NEAR_ZERO
    if abs(at_zero) > 10:  # a(0) is not 0, so no ratio can pass all of a(x) on to x
        raise _unknown(module, name)

    def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return with_ratio(output, args[0], at_zero)

    return hook


def _share_gate(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (shared(args[0], 2), *args[1:])


def _cap(cap: float, _module: nn.Module, _args: tuple[Any, ...], logits: Tensor) -> Tensor:
    return with_ratio(torch.tanh(logits / cap) * cap, logits)


def _unknown(module: nn.Module, name: str) -> ShiftLensError:
    return ShiftLensError(
        f"AttnLRP has no rule here for {name} ({type(module).__name__}); use another saliency.method"
    )
