"""A pair of models: the base, and what instruction tuning made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shiftlens.conf_files import with_defaults
from shiftlens.errors import ConfigError, SourceError
from shiftlens.models.identity import TOKENIZER, Identity, fingerprint
from shiftlens.models.sources import Resolved, resolve

DTYPES = ("auto", "float32", "tf32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class RoleSpec:
    """How to load one role of a pair.

    Args:
        role: ``base`` or ``tuned``.
        source: source string, see :mod:`shiftlens.models.sources`.
        revision: hub revision, or ``None``.
        adapter: source of a LoRA adapter put on top of it, or ``None``.
        dtype: one of :data:`DTYPES`; ``auto`` is float32 on CPU, bfloat16 on GPU; ``tf32`` is float32 whose
            products a GPU may round to 10 bits.
        device_map: ``None`` or an accelerate device map such as ``auto``.
        template: ``auto``, ``chat``, ``none`` or a string with ``{prompt}``.
        underlay: the base, on which an adapter or a weight difference is put.
    """

    role: str
    source: str
    revision: str | None = None
    adapter: str | None = None
    dtype: str = "auto"
    device_map: str | None = None
    template: str = "auto"
    underlay: RoleSpec | None = None

    @property
    def resolved_dtype(self) -> str:
        """The dtype with ``auto`` decided for this machine."""
        if self.dtype != "auto":
            return self.dtype
        import torch

        return "bfloat16" if torch.cuda.is_available() else "float32"


@dataclass(frozen=True)
class Pair:
    """Base and tuned of one comparison.

    Args:
        name: name of the configuration.
        base: how to load the base.
        tuned: how to load the tuned model.
        cache: folder for fetched and converted models.
    """

    name: str
    base: RoleSpec
    tuned: RoleSpec
    cache: Path

    def role(self, role: str) -> RoleSpec:
        """The spec of ``base`` or ``tuned``."""
        return {"base": self.base, "tuned": self.tuned}[role]


@dataclass(frozen=True)
class Layers:
    """The folders a role is made of: a model, and what is put on top, in order."""

    model: Resolved
    on_top: tuple[Resolved, ...] = ()

    @property
    def tokenizer(self) -> Path:
        """The topmost folder that has a tokenizer."""
        for layer in (*reversed(self.on_top), self.model):
            if any((layer.folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")):
                return layer.folder
        raise SourceError(f"{self.model.source}: no tokenizer in {self.model.folder}")


def pair_from_config(model: Mapping[str, Any], cache: str | Path) -> Pair:
    """Read the ``model`` group of the configuration.

    Args:
        model: Values of the group: ``name, base, base_revision, tuned, tuned_revision, adapter, dtype, device_map,
            template``. A key that is missing has its value in ``conf/model/shared/pair.yaml``.
        cache: folder for fetched and converted models.

    Raises:
        ConfigError: lists every key that is missing or wrong.
    """
    model = with_defaults("model/shared", "pair", model)
    problems = [f"model.{key} is missing" for key in ("base", "tuned") if not model.get(key)]
    if model["dtype"] not in DTYPES:
        problems.append(f"model.dtype={model['dtype']}: expected one of {', '.join(DTYPES)}")
    template = str(model["template"] or "none")
    if template not in ("auto", "chat", "none") and "{prompt}" not in template:
        problems.append(f"model.template={template!r}: expected auto, chat, none or a text with {{prompt}}")
    if problems:
        raise ConfigError("\n".join(problems))
    shared: dict[str, Any] = {"dtype": model["dtype"], "device_map": model["device_map"], "template": template}
    base = RoleSpec("base", str(model["base"]), model["base_revision"], **shared)
    tuned = RoleSpec("tuned", str(model["tuned"]), model["tuned_revision"], model["adapter"], **shared)
    return Pair(
        str(model.get("name") or "pair"),
        base,
        replace(tuned, underlay=base),
        Path(cache).expanduser().resolve(),
    )


def find_layers(spec: RoleSpec, cache: Path) -> Layers:
    """Find or fetch every folder that a role is made of.

    Raises:
        SourceError: a source is not there; or an adapter or difference has no base to lie on.
    """
    top = resolve(spec.source, spec.revision, cache)
    layers = Layers(top)
    if top.kind != "model":
        if spec.underlay is None:
            raise SourceError(f"{spec.source} is an {top.kind} and needs a base model to lie on")
        below = find_layers(spec.underlay, cache)
        layers = Layers(below.model, (*below.on_top, top))
    if spec.adapter:
        adapter = resolve(spec.adapter, None, cache)
        if adapter.kind != "adapter":
            raise SourceError(
                f"model.adapter={spec.adapter}: {adapter.folder} holds a {adapter.kind}, not an adapter"
            )
        layers = Layers(layers.model, (*layers.on_top, adapter))
    return layers


def identify(spec: RoleSpec, layers: Layers, cache: Path) -> Identity:
    """The identity of a role, without loading its weights into memory."""
    prints = [(layer.kind, fingerprint(layer.folder, cache)) for layer in (layers.model, *layers.on_top)]
    whole = prints[0][1] if len(prints) == 1 else hashlib.sha256(repr(prints).encode()).hexdigest()
    source = spec.source + (f" + {spec.adapter}" if spec.adapter else "")
    tokenizer = fingerprint(layers.tokenizer, cache, TOKENIZER)
    return Identity(source, whole, spec.revision or "", spec.resolved_dtype, tokenizer)


def find_pair(pair: Pair, roles: Sequence[str] = ("base", "tuned")) -> dict[str, Layers]:
    """Find both roles of a pair before any work starts.

    Args:
        pair: the pair.
        roles: the roles needed.

    Returns:
        Role -> its folders.

    Raises:
        SourceError: one message that names the pair, every source tried, and what works offline.
    """
    found: dict[str, Layers] = {}
    faults: list[str] = []
    for role in roles:
        try:
            found[role] = find_layers(pair.role(role), pair.cache)
        except SourceError as error:
            faults.append(f"  {role}: {error}")
    if faults:
        raise SourceError("\n".join([f"Pair '{pair.name}' cannot be loaded.", *dict.fromkeys(faults), OFFLINE]))
    return found


OFFLINE = """Without a hub these work:
  python analyze.py model=bundled                      a real 135M pair, from the package index
  python analyze.py model.base=DIR model.tuned=DIR     folders with config.json and *.safetensors
  hf download ID                                       on a machine with a network; then copy HF_HOME here"""
