"""From folders to a model in memory, frozen and ready to explain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from shiftlens.errors import SourceError
from shiftlens.models.identity import Identity
from shiftlens.models.pair import Layers, RoleSpec, identify


@dataclass
class LM:
    """A loaded language model.

    Args:
        model: frozen, in evaluation mode.
        tokenizer: its tokenizer.
        template: how a prompt is wrapped, see :func:`shiftlens.prompts.encode.encode`.
        identity: who it is, by content.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: str
    identity: Identity


def load_tokenizer(layers: Layers) -> PreTrainedTokenizerBase:
    """The tokenizer of a role.

    Raises:
        SourceError: there is none that gives character offsets, which the spans need.
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
    """Decide ``auto`` and ``chat``: the chat template text of ``tokenizer``, or ``none``.

    Base and tuned must read the same words around a prompt, so the pair uses the tuned model's
    template for both.

    Raises:
        SourceError: ``chat`` was asked for and the tokenizer has no chat template.
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


def load_lm(spec: RoleSpec, layers: Layers, template: str, cache: Path) -> LM:
    """Load a role into memory.

    Args:
        spec: how to load it.
        layers: its folders, from :func:`shiftlens.models.pair.find_layers`.
        template: the decided template, from :func:`shared_template`.
        cache: folder for fingerprints.

    Returns:
        The model with frozen parameters; adapters and weight differences are merged in.

    Raises:
        SourceError: the folder cannot be read as a causal language model.
    """
    model = _read(layers.model.folder, spec)
    for layer in layers.on_top:
        model = _add_delta(model, layer.folder, spec) if layer.kind == "delta" else _merge(model, layer.folder)
    model.requires_grad_(False)
    model.eval()
    return LM(model, load_tokenizer(layers), template, identify(spec, layers, cache))


def _read(folder: Path, spec: RoleSpec) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, "float32" if spec.resolved_dtype == "tf32" else spec.resolved_dtype),
            device_map=spec.device_map,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (ValueError, OSError, RuntimeError) as error:
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
    except (ValueError, RuntimeError) as error:
        raise SourceError(f"{folder}: this adapter does not fit its base model: {error}") from error


def _add_delta(model: PreTrainedModel, folder: Path, spec: RoleSpec) -> PreTrainedModel:
    """Add a published weight difference to its base, in place of the difference.

    A difference may have more vocabulary rows than the base (a padding token was added before
    tuning); its publishers gave such rows the mean of the others, so the base gets that first.
    """
    tuned = _read(folder, spec)
    base = model.state_dict()
    with torch.no_grad():
        seen: set[int] = set()
        for name, weight in tuned.state_dict().items():
            if name not in base:
                raise SourceError(f"{folder}: the base has no weight {name}; is this its weight difference?")
            if weight.data_ptr() in seen:  # tied: already added
                continue
            seen.add(weight.data_ptr())
            below = base[name].to(weight.device)
            extra = weight.shape[0] - below.shape[0] if weight.dim() == 2 else 0
            if extra > 0:
                below = torch.cat([below, below.mean(0, keepdim=True).expand(extra, -1)])
            if below.shape != weight.shape:
                raise SourceError(
                    f"{folder}: {name} has shape {tuple(weight.shape)}, the base {tuple(below.shape)}"
                )
            weight.add_(below)
    return tuned
