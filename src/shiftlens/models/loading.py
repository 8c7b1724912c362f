"""Loads a model of a pair into memory, frozen, with its tokenizer and template."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from shiftlens.errors import SourceError
from shiftlens.models.identity import Identity, Stamp, stamps
from shiftlens.models.pair import Layers, RoleSpec, identify
from shiftlens.models.stops import stop_ids


@dataclass
class LM:
    """Holds a loaded language model and what is needed to feed it and to name it.

    Args:
        model: Causal language model, frozen and in evaluation mode.
        tokenizer: Tokenizer of the model.
        template: Text to write around a prompt, see :func:`shiftlens.prompts.encode.encode`.
        identity: Content hash of the model.
        stops: Ids that end a response; if empty, the tokenizer's end token.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: str
    identity: Identity
    stops: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.stops and self.tokenizer.eos_token_id is not None:
            self.stops = (int(self.tokenizer.eos_token_id),)


def load_tokenizer(layers: Layers) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Args:
        layers: Folders of the model, from :func:`shiftlens.models.pair.find_layers`.

    Raises:
        SourceError: There is no tokenizer that gives character offsets, which the spans of prompts need.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(layers.tokenizer, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise SourceError(f"{layers.tokenizer}: the tokenizer cannot be read: {error}") from error
    if not tokenizer.is_fast:
        raise SourceError(
            f"{layers.tokenizer}: its tokenizer gives no character offsets; add a tokenizer.json "
            "(tokenizer.save_pretrained of a fast tokenizer writes one)"
        )
    return tokenizer


def shared_template(template: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Replace the settings ``auto`` and ``chat`` by the text of a chat template, or by ``none``.

    Base and tuned must read the same words around a prompt, so a pair uses the chat template of the tuned
    model for both models.

    Args:
        template: Setting ``model.template``.
        tokenizer: Tokenizer that has the chat template.

    Returns:
        ``jinja:`` and the chat template, ``none``, or a text with ``{prompt}``.

    Raises:
        SourceError: The setting is ``chat`` and the tokenizer has no chat template.
    """
    if template not in ("auto", "chat"):
        return template
    if tokenizer.chat_template:
        return f"jinja:{tokenizer.get_chat_template()}"
    if template == "chat":
        raise SourceError(
            f"model.template=chat: {tokenizer.name_or_path} has no chat template; use none or a text"
        )
    return "none"


def load_lm(spec: RoleSpec, layers: Layers, template: str, cache: Path, identity: Identity | None = None) -> LM:
    """Load a model into memory, and check that its files are still those that its identity names.

    Args:
        spec: How to load the model.
        layers: Folders of the model, from :func:`shiftlens.models.pair.find_layers`.
        template: Template as :func:`shared_template` returns it.
        cache: Folder for the remembered hashes.
        identity: Identity under which results are to be stored; ``None`` takes it before the weights are read.

    Returns:
        The model with frozen parameters; adapters and weight differences are merged into them.

    Raises:
        SourceError: A folder cannot be read as a causal language model, or its files changed since the identity
            was taken.
    """
    if identity is None:
        identity = identify(spec, layers, cache)
    before = _stamps(layers)
    model, generation_folder = _read(layers.model.folder, spec), layers.model.folder
    for layer in layers.on_top:
        if layer.kind == "delta":
            model, generation_folder = _add_delta(model, layer.folder, spec), layer.folder
        else:
            model = _merge(model, layer.folder)
    model.requires_grad_(False)
    model.eval()
    _copy_mapped_weights(model)
    tokenizer = load_tokenizer(layers)
    # Only files that were written since the identity was taken are hashed again.
    if _stamps(layers) != before or not identify(spec, layers, cache).same_files(identity):
        raise SourceError(
            f"{' or '.join(str(layer.folder) for layer in layers.in_order)} changed while this run was going on: "
            "results would be stored under the name of the former model; start the run again"
        )
    return LM(model, tokenizer, template, identity, tuple(stop_ids(generation_folder, tokenizer)))


def _stamps(layers: Layers) -> list[dict[str, Stamp]]:
    return [stamps(folder) for folder in (*(layer.folder for layer in layers.in_order), layers.tokenizer)]


def _copy_mapped_weights(model: PreTrainedModel) -> None:
    """Copy weights that are mapped from a file into memory, where a later change of the file cannot reach them."""
    for weight in (*model.parameters(), *model.buffers()):
        # Only memory of PyTorch's own can be resized. Weights on a GPU, or converted to another dtype, are copies.
        if weight.device.type == "cpu" and not weight.untyped_storage().resizable():
            weight.data = weight.data.clone()


def load_shape(spec: RoleSpec, layers: Layers) -> PreTrainedModel:
    """Make a model without its weights from its configuration, on the device ``meta``.

    Args:
        spec: How to load the model.
        layers: Folders of the model, from :func:`shiftlens.models.pair.find_layers`.

    Raises:
        SourceError: The configuration cannot be read, or is not that of a causal language model.
    """
    folder = [layer.folder for layer in layers.in_order if layer.kind != "adapter"][-1]
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=_dtype(spec))
    except (ValueError, OSError) as error:
        raise SourceError(f"{folder}: its configuration cannot be read: {error}") from error
    return model.requires_grad_(False).eval()


def _dtype(spec: RoleSpec) -> torch.dtype:
    return getattr(torch, "float32" if spec.resolved_dtype == "tf32" else spec.resolved_dtype)


def _read(folder: Path, spec: RoleSpec) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=_dtype(spec),
            device_map=spec.device_map,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            # Experts one by one: the grouped product, the default, has no forward derivative.
            experts_implementation="eager",
        )
    except (ValueError, OSError, RuntimeError, SafetensorError) as error:
        raise SourceError(f"{folder}: cannot be loaded as a causal language model: {error}") from error
    if any(weight.is_meta for weight in model.parameters()):
        raise SourceError(
            f"{folder}: does not fit the devices of model.device_map={spec.device_map} without offloading"
        )
    return model


def _merge(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise SourceError(f"{folder}: this adapter does not fit its base model: {error}") from error


def _add_delta(model: PreTrainedModel, folder: Path, spec: RoleSpec) -> PreTrainedModel:
    """Add a published weight difference to its base, in place of the difference.

    A difference may have more vocabulary rows than the base (a padding token was added before tuning). Its
    publishers gave such rows the mean of the others, so the base gets these rows first.
    """
    tuned = _read(folder, spec)
    base_weights = model.state_dict()
    with torch.no_grad():
        added: set[int] = set()
        for name, weight in tuned.state_dict().items():
            if name not in base_weights:
                raise SourceError(f"{folder}: the base has no weight {name}; is this its weight difference?")
            if weight.data_ptr() in added:  # tied to a weight that is already a sum
                continue
            added.add(weight.data_ptr())
            base_weight = base_weights[name].to(weight.device)
            extra_rows = weight.shape[0] - base_weight.shape[0] if weight.dim() == 2 else 0
            if extra_rows > 0:
                mean_row = base_weight.mean(0, keepdim=True)  # [1, width]
                base_weight = torch.cat([base_weight, mean_row.expand(extra_rows, -1)])  # [vocab, width]
            if base_weight.shape != weight.shape:
                raise SourceError(
                    f"{folder}: {name} has shape {tuple(weight.shape)}, the base {tuple(base_weight.shape)}"
                )
            weight.add_(base_weight)
    return tuned
