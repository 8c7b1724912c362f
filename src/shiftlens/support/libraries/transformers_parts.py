"""Private parts of transformers: attention implementations, layer classes, caches, GPT-2's linear layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer
from transformers.pytorch_utils import Conv1D

LLAMA_LAYERS: tuple[type[nn.Module], ...] = (
    LlamaDecoderLayer,
    MistralDecoderLayer,
    Qwen2DecoderLayer,
    Qwen3DecoderLayer,
)
"""Layers of one form: RMS norms, rotary attention, gated feed-forward layer."""

__all__ = [
    "LLAMA_LAYERS",
    "Conv1D",
    "attention_of",
    "body_of",
    "cached",
    "is_own_hook",
    "register_attention",
    "set_attention",
    "without_quantization",
]


def register_attention(name: str, function: Callable[..., Any], mask: Callable[..., Any] | None = None) -> None:
    """Make an attention function known under a name.

    Args:
        name: Name for :func:`set_attention`.
        function: Function with the arguments of transformers' attention functions.
        mask: Function that makes its masks; by default they are those of eager attention.
    """
    ALL_ATTENTION_FUNCTIONS.register(name, function)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, mask or ALL_MASK_ATTENTION_FUNCTIONS["eager"])


def attention_of(config: PreTrainedConfig) -> str | None:
    """Name of the attention function of a model with this configuration, as :func:`set_attention` takes it."""
    return config._attn_implementation_internal


def set_attention(config: PreTrainedConfig, name: str | None) -> None:
    """Choose the attention function of a model.

    Written to the configuration directly: ``set_attn_implementation`` warns or refuses for some families.

    Args:
        config: Configuration of the model.
        name: Name of the function.
    """
    config._attn_implementation_internal = name


def body_of(model: PreTrainedModel) -> Any:
    """The model without its output layer."""
    return getattr(model, model.base_model_prefix)


def cached(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer, [batch, groups, length, head] each.

    Args:
        cache: Cache that a pass has filled.
    """
    return [(layer.keys, layer.values) for layer in cache.layers]


def is_own_hook(hook: Callable[..., Any]) -> bool:
    """Whether a hook is one of transformers itself; those record outputs and change nothing."""
    return (getattr(hook, "__module__", None) or "").startswith("transformers.")


def without_quantization(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of a model whose quantized weights were widened while loading.

    Args:
        config: Configuration as loading left it; it is changed.
    """
    del config.quantization_config
    return config
