"""Describes a pair of models (a base and its tuned version), finds their folders, and hashes their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shiftlens.errors import ConfigError, SourceError
from shiftlens.models.identity import TOKENIZER, Identity, fingerprint
from shiftlens.models.roles import ROLES
from shiftlens.models.sources import Resolved, resolve
from shiftlens.support.conf_files import with_defaults

DTYPES = ("auto", "float32", "tf32", "bfloat16", "float16", "float64")
"""Values of ``model.dtype``."""


@dataclass(frozen=True)
class RoleSpec:
    """Says how to load one model of a pair.

    Args:
        role: Role of the model, ``base`` or ``tuned``.
        source: Source string, see :mod:`shiftlens.models.sources`.
        revision: Hub revision, or ``None`` for the default branch.
        adapter: Source of a LoRA adapter to merge into the model, or ``None``.
        dtype: One of :data:`DTYPES`; ``auto`` is float32 on CPU, bfloat16 on GPU; ``tf32`` is float32 whose
            products a GPU may round to 10 bits.
        device_map: ``None`` or an accelerate device map such as ``auto``.
        template: ``auto``, ``chat``, ``none`` or a string with ``{prompt}``.
        underlay: Base to which an adapter or a weight difference is applied, or ``None``.
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
        """The dtype, where ``auto`` is replaced by the choice for this machine."""
        if self.dtype != "auto":
            return self.dtype
        import torch

        return "bfloat16" if torch.cuda.is_available() else "float32"


@dataclass(frozen=True)
class Pair:
    """Says how to load both models of one comparison.

    Args:
        name: Name of the configuration.
        base: How to load the base.
        tuned: How to load the tuned model.
        cache: Folder for fetched and converted models.
    """

    name: str
    base: RoleSpec
    tuned: RoleSpec
    cache: Path

    def role(self, role: str) -> RoleSpec:
        """Return how to load one of the two models.

        Args:
            role: One of :data:`~shiftlens.models.roles.ROLES`.
        """
        return dict(zip(ROLES, (self.base, self.tuned), strict=True))[role]


@dataclass(frozen=True)
class Layers:
    """Folders from which one model is assembled.

    Args:
        model: Folder with complete weights.
        on_top: Adapters and weight differences to apply to these weights, in this order.
    """

    model: Resolved
    on_top: tuple[Resolved, ...] = ()

    @property
    def in_order(self) -> tuple[Resolved, ...]:
        """Every folder, in the order of application."""
        return self.model, *self.on_top

    @property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer: the last folder in the order of application that has one.

        Raises:
            SourceError: No folder has a tokenizer.
        """
        for layer in reversed(self.in_order):
            if any((layer.folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")):
                return layer.folder
        raise SourceError(f"{self.model.source}: no tokenizer in {self.model.folder}")


def pair_from_config(model: Mapping[str, Any], cache: str | Path) -> Pair:
    """Read the ``model`` group of the configuration.

    Args:
        model: Values of the group: ``name, base, base_revision, tuned, tuned_revision, adapter, dtype, device_map,
            template``. A key that is missing has its value in ``conf/model/shared/pair.yaml``.
        cache: Folder for fetched and converted models.

    Raises:
        ConfigError: Lists every key that is missing or wrong.
    """
    model = with_defaults("model/shared", "pair", model)
    problems = [f"model.{role} is missing" for role in ROLES if not model.get(role)]
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


def find_layers(spec: RoleSpec, cache: Path, weights: bool = True) -> Layers:
    """Find or fetch every folder that a model is assembled from.

    Args:
        spec: How to load the model.
        cache: Folder for fetched and converted models.
        weights: Whether weights are needed, see :func:`~shiftlens.models.sources.resolve`.

    Raises:
        SourceError: A source cannot be found, or an adapter or weight difference has no base to apply it to.
    """
    top = resolve(spec.source, spec.revision, cache, weights)
    layers = Layers(top)
    if top.kind != "model":
        if spec.underlay is None:
            raise SourceError(f"{spec.source} is an {top.kind} and needs a base model to lie on")
        below = find_layers(spec.underlay, cache, weights)
        layers = Layers(below.model, (*below.on_top, top))
    if spec.adapter:
        adapter = resolve(spec.adapter, None, cache, weights)
        if adapter.kind != "adapter":
            raise SourceError(
                f"model.adapter={spec.adapter}: {adapter.folder} holds a {adapter.kind}, not an adapter"
            )
        layers = Layers(layers.model, (*layers.on_top, adapter))
    return layers


def identify(spec: RoleSpec, layers: Layers, cache: Path) -> Identity:
    """Identify a model by the content of its files, without loading its weights into memory.

    Args:
        spec: How to load the model.
        layers: Folders of the model, from :func:`find_layers`.
        cache: Folder for the remembered hashes.

    Raises:
        SourceError: A file was written while its hash was computed.
    """
    prints = [(layer.kind, fingerprint(layer.folder, cache)) for layer in layers.in_order]
    whole = prints[0][1] if len(prints) == 1 else hashlib.sha256(repr(prints).encode()).hexdigest()
    source = spec.source + (f" + {spec.adapter}" if spec.adapter else "")
    tokenizer = fingerprint(layers.tokenizer, cache, TOKENIZER)
    return Identity(source, whole, spec.revision or "", spec.resolved_dtype, tokenizer)


def find_pair(pair: Pair, roles: Sequence[str] = ROLES, weights: bool = True) -> dict[str, Layers]:
    """Find the models of a pair before any work starts.

    Args:
        pair: The pair.
        roles: Roles to find.
        weights: Whether weights are needed, see :func:`~shiftlens.models.sources.resolve`.

    Returns:
        Role -> its folders.

    Raises:
        SourceError: One message that names the pair, every source tried, and what works offline.
    """
    layers_by_role: dict[str, Layers] = {}
    faults: list[str] = []
    for role in roles:
        try:
            layers_by_role[role] = find_layers(pair.role(role), pair.cache, weights)
        except SourceError as error:
            faults.append(f"  {role}: {error}")
    if faults:
        raise SourceError("\n".join([f"Pair '{pair.name}' cannot be loaded.", *dict.fromkeys(faults), OFFLINE]))
    return layers_by_role


OFFLINE = """Without a hub these work:
  python analyze.py model=bundled                      a real 135M pair, from the package index
  python analyze.py model.base=DIR model.tuned=DIR     folders with config.json and *.safetensors
  hf download ID                                       on a machine with a network; then copy HF_HOME here"""
