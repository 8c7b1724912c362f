"""Private parts of peft: the matrices of a LoRA layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def lora_change(layer: Any, name: str) -> Tensor:
    """What a plain LoRA adapter adds to the weight of its layer: ``s B A``, laid out as the weight is.

    Right for LoRA and rsLoRA; DoRA also scales the weight.

    Args:
        layer: Layer of peft that wraps a linear map.
        name: Name of the adapter.

    Returns:
        [outputs, inputs], or [inputs, outputs] for GPT-2's ``Conv1D``.
    """
    product: Tensor = layer.lora_B[name].weight @ layer.lora_A[name].weight * layer.scaling[name]
    return product.T if layer.fan_in_fan_out else product


def active_adapters(layer: Any) -> list[str]:
    """Names of the adapters that a layer applies."""
    return list(layer.active_adapters)
