"""LoRA put on a model, and a plain model read off one that is being trained."""

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
    """Put trainable low-rank matrices beside the linear maps of a model; its own weights are frozen.

    The matrices start as they were before every run of the same seed, and leave the model's outputs as they are.
    They are float32 even where the model is in half precision.

    Args:
        model: causal language model; its layers are replaced in place.
        settings: rank, alpha, dropout, targets and seed.

    Raises:
        ConfigError: no layer has such a name, or a target shares its weights with another layer.
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
    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"


def plain_model(model: nn.Module) -> PreTrainedModel:
    """The model as it stands now, without LoRA layers, frozen and in evaluation mode.

    A layer with LoRA becomes its plain kind with fresh weights ``W + s B A``. All other weights are shared with
    the model, not copied, so they follow its training: take a new one for another look. Nothing of the
    model is changed (merging and unmerging in place would round its weights).

    Args:
        model: a Hugging Face causal language model, or the same under LoRA.

    Returns:
        The plain model, on the same device and in the same dtype.
    """
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    memo: dict[int, Any] = {}
    # What a copy finds in `memo` it does not copy: weights and buffers are shared, hooks stay where they are.
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
    base = layer.get_base_layer()
    weight = base.weight.detach()
    for name in active_adapters(layer):
        weight = weight + lora_change(layer, name).to(weight)
    own = {**memo, id(base.weight): nn.Parameter(weight, requires_grad=False)}
    plain: nn.Module = copy.deepcopy(base, own)
    return plain
