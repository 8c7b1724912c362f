"""Adds LoRA to a model, and makes a plain copy of a model that is being trained."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from shiftlens.errors import ConfigError
from shiftlens.support.libraries.peft_parts import active_adapters, lora_change
from shiftlens.support.libraries.torch_parts import hook_tables
from shiftlens.tuning.tune_options import TuneOptions


def with_lora(model: PreTrainedModel, settings: TuneOptions) -> PeftModel:
    """Add trainable low-rank matrices to linear layers of a model and freeze its own weights.

    Equal seeds give equal initial matrices, and the initial matrices do not change the model's outputs. They are
    float32 even if the model is in half precision.

    Args:
        model: Causal language model; its target layers are replaced in place.
        settings: Settings of the run; used are rank, alpha, dropout, targets and seed.

    Returns:
        The model under LoRA.

    Raises:
        ConfigError: No layer has the name of a target, or a target is the input or output embedding of a model
            in which the two share their weights.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.targets if isinstance(settings.targets, str) else list(settings.targets),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            tuned: PeftModel = get_peft_model(model, config)
        except ValueError as error:
            names = sorted({name.rpartition(".")[2] for name, layer in model.named_modules() if _linear(layer)})
            raise ConfigError(f"tune.targets={settings.targets}: {error}; linear layers are {names}") from error
    shared = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer}
    for name, layer in tuned.named_modules():
        if isinstance(layer, LoraLayer) and id(layer.get_base_layer().weight) in shared:
            raise ConfigError(
                f"tune.targets: {name} is the input or output embedding; leave it out: merging would change both"
            )
    return tuned


def _linear(layer: nn.Module) -> bool:
    """Return whether LoRA can be applied to a layer; ``Conv1D`` is the linear layer of GPT-2."""
    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"


def plain_model(model: nn.Module) -> PreTrainedModel:
    """Return a copy of a model without LoRA layers, frozen and in evaluation mode.

    A layer with LoRA becomes a plain layer with new weights ``W + s B A``. All other weights are shared with
    the model, not copied, so they change when training goes on: make a new copy for each look. The model itself is
    not changed (merging and unmerging in place would round its weights).

    Args:
        model: Hugging Face causal language model, with or without LoRA.

    Returns:
        The plain model, on the same device and in the same dtype.
    """
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    memo: dict[int, Any] = {}
    # `deepcopy` does not copy objects listed in `memo` but uses the entry: weights and buffers are shared with the
    # model, and hooks become empty dictionaries, so that the copy has none.
    for module in inner.modules():
        for weight in module.parameters(recurse=False):
            memo[id(weight)] = nn.Parameter(weight.detach(), requires_grad=False)
        for buffer in module.buffers(recurse=False):
            memo[id(buffer)] = buffer
        for hooks in hook_tables(module):
            memo[id(hooks)] = type(hooks)()
    merged = {name: _merged(layer, memo) for name, layer in inner.named_modules() if isinstance(layer, LoraLayer)}
    plain: PreTrainedModel = copy.deepcopy(inner, memo)
    for name, layer in merged.items():
        parent, _, last = name.rpartition(".")
        setattr(plain.get_submodule(parent), last, layer)
    if any(getattr(module, "gradient_checkpointing", False) for module in plain.modules()):
        plain.gradient_checkpointing_disable()
    return plain.requires_grad_(False).eval()


@torch.no_grad()
def _merged(layer: Any, memo: dict[int, Any]) -> nn.Module:
    """Return a plain layer with the weights ``W + s B A``; other parameters come from ``memo``, so are shared."""
    base = layer.get_base_layer()
    weight = base.weight.detach()  # [out, in]; Conv1D: [in, out]
    for name in active_adapters(layer):
        weight = weight + lora_change(layer, name).to(weight)
    own = {**memo, id(base.weight): nn.Parameter(weight, requires_grad=False)}
    plain: nn.Module = copy.deepcopy(base, own)
    return plain
