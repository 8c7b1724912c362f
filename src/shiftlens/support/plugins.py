"""Finds parts that others add: by ``_target_`` in the configuration, or by entry points of installed packages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from shiftlens.errors import ConfigError


def pick(key: str, value: Any, builtin: Mapping[str, Any], group: str) -> Any:
    """What a key of the configuration names: a part of ShiftLens or one that others added.

    Args:
        key: The key, for messages.
        value: Name of a built-in part, name of an entry point in ``group``, or a mapping with ``_target_``, which
            is instantiated as Hydra does.
        builtin: Name -> part of ShiftLens.
        group: Entry point group, e.g. ``shiftlens.readers``.

    Returns:
        The part; what an entry point names is imported, not called.

    Raises:
        ConfigError: Nothing has that name, lists those that are known; or it cannot be imported.

    Example:
        >>> pick("data.reader", "tsv", {"tsv": "the reader"}, "shiftlens.readers")
        'the reader'
        >>> pick("data.reader", "xml", {"tsv": "the reader"}, "shiftlens.readers")
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: data.reader=xml: expected one of tsv, or a node with _target_
    """
    if isinstance(value, Mapping) and "_target_" in value:
        # Imported here: names need no Hydra.
        from hydra.errors import InstantiationException
        from hydra.utils import instantiate

        try:
            return instantiate(dict(value))
        except InstantiationException as error:
            raise ConfigError(f"{key}._target_={value['_target_']}: cannot be used: {error}") from error
    added = {point.name: point for point in entry_points(group=group)}
    if isinstance(value, str) and value in builtin:
        return builtin[value]
    if isinstance(value, str) and value in added:
        try:
            return added[value].load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{key}={value}: its entry point {added[value].value} fails: {error}") from error
    names = ", ".join([*builtin, *(name for name in added if name not in builtin)])
    raise ConfigError(f"{key}={value}: expected one of {names}, or a node with _target_")
