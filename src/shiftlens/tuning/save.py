"""Saves the tuned model as a folder that ``analyze.py`` and any other tool can load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shiftlens.models.sources import short_name
from shiftlens.support.whole_files import write_text, write_whole

RECORD = "record.json"


def save_tuned(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    record: Mapping[str, Any],
    start: str,
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a tuned model: a Hugging Face folder, or under LoRA an adapter folder with weights in bfloat16.

    Args:
        model: The tuned model.
        tokenizer: Tokenizer of the model.
        folder: Folder to write into.
        record: Record of how the model was made; becomes ``record.json``.
        start: Source of the model that was tuned; the folder of an adapter names it.
        weights: Name -> whole weight, where the weights are cut over processes; ``None`` takes the model's own.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel):
        _save_adapter(model, folder, start, weights)
    else:
        assert isinstance(model, PreTrainedModel)
        model.save_pretrained(folder, state_dict=None if weights is None else dict(weights))
    tokenizer.save_pretrained(folder)
    # Last, so that a folder with a record is complete.
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
    return folder


def _save_adapter(model: PeftModel, folder: Path, start: str, weights: Mapping[str, Tensor] | None) -> None:
    adapter: dict[str, Tensor] = get_peft_model_state_dict(
        model, state_dict=None if weights is None else dict(weights), save_embedding_layers=False
    )
    rounded = {name: weight.detach().to("cpu", torch.bfloat16).contiguous() for name, weight in adapter.items()}
    write_whole(
        folder / "adapter_model.safetensors",
        lambda partial: save_file(rounded, partial, metadata={"format": "pt"}),
    )
    config = model.peft_config[model.active_adapter]
    settings = config.to_dict()
    # Sets and enums as what a file can hold; a name that means something elsewhere, not a path of this machine.
    settings.update(
        base_model_name_or_path=public_name(start),
        inference_mode=True,
        peft_type="LORA",
        task_type="CAUSAL_LM",
        target_modules=sorted(config.target_modules)
        if isinstance(config.target_modules, set | list)
        else config.target_modules,
    )
    text = json.dumps(settings, indent=2, sort_keys=True, default=_plain)
    write_text(folder / "adapter_config.json", text + "\n")


def public_name(source: str) -> str:
    """Strip the folders of this machine from a source: a hub id stays as it is, else the last part remains.

    Example:
        >>> public_name("org/model-7b"), public_name("/home/me/model"), public_name("package:a==1#Model.Q4_1.gguf")
        ('org/model-7b', 'model', 'Model.Q4_1')
    """
    is_hub_id = source.count("/") == 1 and not source.startswith(("/", ".", "~", "package:", "asset:", "delta:"))
    return source if is_hub_id and not Path(source).exists() else short_name(source)


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)
