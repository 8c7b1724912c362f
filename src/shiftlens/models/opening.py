"""Opens a model: by name or source for the Python interface, or as one role of a pair."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shiftlens.errors import ConfigError, SourceError
from shiftlens.models.loading import LM, load_lm, load_tokenizer, shared_template
from shiftlens.models.pair import Layers, Pair, find_layers, find_pair, pair_from_config
from shiftlens.models.roles import ROLES
from shiftlens.support.cache_path import cache_dir
from shiftlens.support.conf_files import choices, model_config


def open_role(pair: Pair, name: str, layers: Mapping[str, Layers] | None = None) -> LM:
    """Load one model of a pair, with its tokenizer and the template that the pair shares.

    A template that the configuration leaves open (``auto``, ``chat``) is the tuned model's chat template for
    both models, so that base and tuned read the same words around a prompt.

    Args:
        pair: Pair that the model belongs to.
        name: Role to load, ``base`` or ``tuned``.
        layers: Folders of the role, by role, from :func:`~shiftlens.models.pair.find_pair`; without the tuned
            model among them an open template comes from the role's own tokenizer. ``None`` finds both models.

    Returns:
        The model, frozen.

    Raises:
        SourceError: A model cannot be found or read, or it has no chat template although one is required.
    """
    folders = find_pair(pair) if layers is None else layers
    template_role = "tuned" if "tuned" in folders else name
    template = shared_template(pair.role(template_role).template, load_tokenizer(folders[template_role]))
    return load_lm(pair.role(name), folders[name], template, pair.cache)


def load(source: str, **settings: Any) -> LM:
    """Load a language model.

    Args:
        source: a configuration name with a role (``bundled:base``, ``vicuna:tuned``; without a role the
            tuned model), a local folder, ``package:NAME==VERSION#FILE``, or a hub id.
        **settings: keys of the ``model`` configuration group: ``dtype``, ``device_map``, ``template``,
            ``adapter``; ``revision`` of a hub id; ``cache`` for the folder of fetched models.

    Returns:
        The model, frozen, with its tokenizer and template.

    Raises:
        SourceError: it cannot be found or read.
        ConfigError: the name, role or a setting is unknown.

    Example:
        >>> load("bundled:middle")
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: bundled:middle: the role is base or tuned
    """
    cache = settings.pop("cache", cache_dir())
    name, _, role = source.partition(":")
    if name in choices("model"):
        role = role or "tuned"
        if role not in ROLES:
            raise ConfigError(f"{source}: the role is base or tuned")
        return _open(_pair(model_config(name), settings, cache), role)
    revision = settings.pop("revision", None)
    pair = _pair({"name": source, "base": source, "base_revision": revision, "tuned": source}, settings, cache)
    try:
        layers = find_layers(pair.base, pair.cache)
    except SourceError as error:
        close = difflib.get_close_matches(name, choices("model"))
        hint = f"\nDid you mean {' or '.join(close)}?" if close else ""
        raise SourceError(f"{error}{hint}") from error
    return open_role(pair, "base", {"base": layers})


def _pair(model: Mapping[str, Any], settings: Mapping[str, Any], cache: str | Path) -> Pair:
    known = ("adapter", "device_map", "dtype", "template")
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ConfigError(
            f"load() got {', '.join(unknown)}; known settings are {', '.join(known)}, revision, cache"
        )
    return pair_from_config({**model, **settings}, cache)


def _open(pair: Pair, role: str) -> LM:
    needs_only_base = role == "base" and pair.base.template not in ("auto", "chat")
    return open_role(pair, role, find_pair(pair, ["base"]) if needs_only_base else None)
