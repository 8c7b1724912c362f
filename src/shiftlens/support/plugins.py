"""Finds parts that others add: by ``_target_`` in the configuration, or by entry points of installed packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
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
    if isinstance(value, str) and value in builtin:  # before all installed packages are searched
        return builtin[value]
    points = added(group)
    if isinstance(value, str) and value in points:
        try:
            return points[value].load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{key}={value}: its entry point {points[value].value} fails: {error}") from error
    raise ConfigError(f"{key}={value}: {expected_names(builtin, group)}")


def added(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group, by name.

    Args:
        group: Entry point group, e.g. ``shiftlens.readers``.
    """
    return {point.name: point for point in entry_points(group=group)}


def expected_names(builtin: Iterable[str], group: str) -> str:
    """Return the end of a message about a name that nothing has.

    Args:
        builtin: Names of the parts of ShiftLens.
        group: Entry point group of the parts of others.

    Example:
        >>> expected_names(["tsv"], "shiftlens.readers")
        'expected one of tsv, or a node with _target_'
    """
    return f"expected one of {', '.join(dict.fromkeys([*builtin, *added(group)]))}, or a node with _target_"
