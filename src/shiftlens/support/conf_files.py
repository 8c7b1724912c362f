"""Reads single files of the configuration in Python, without a Hydra application.

Hydra composes a whole run and keeps global state. The functions below read one file with plain OmegaConf, so they
work inside a running Hydra application, in a notebook and in several threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from shiftlens.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"


def choices(group: str) -> list[str]:
    """List what a configuration group can be set to.

    Args:
        group: Folder below ``conf``, such as ``model``.

    Example:
        >>> choices("tune")
        ['full', 'lora']
    """
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def read_choice(group: str, name: str) -> dict[str, Any]:
    """Read one choice of a configuration group, together with the files in its defaults list.

    Args:
        group: Folder below ``conf``, such as ``data``.
        name: Name of the choice, such as ``lima``.

    Returns:
        The values that Hydra composes for the choice. A key without a value is ``"???"``.

    Raises:
        ConfigError: The group has no such choice.

    Example:
        >>> lima = read_choice("data", "lima")
        >>> lima["repo"], lima["max_new_tokens"]
        ('GAIR/lima', 300)
    """
    if name not in choices(group):
        raise ConfigError(f"{group}={name}: expected one of {', '.join(choices(group))}")
    own = deepcopy(_content(CONF / group / f"{name}.yaml"))
    values: dict[str, Any] = {}
    for entry in own.pop("defaults", ["_self_"]):
        if entry == "_self_":
            values.update({str(key): value for key, value in own.items()})
        else:  # a file beside this one or below, such as shared/hub@_here_
            folder, _, file = entry.removesuffix("@_here_").rpartition("/")
            values.update(read_choice(f"{group}/{folder}".rstrip("/"), file))
    return values


@cache
def _content(path: Path) -> dict[str, Any]:
    own: Any = OmegaConf.to_container(OmegaConf.load(path))
    return own


def model_config(name: str) -> dict[str, Any]:
    """Read a named pair of models, the configuration ``model=NAME``.

    Args:
        name: Name of a pair, such as ``vicuna``.

    Returns:
        The values of the group ``model``.

    Raises:
        ConfigError: There is no pair of this name.

    Example:
        >>> model_config("bundled")["tuned"]
        'asset:bundled-adapter'
    """
    return read_choice("model", name)


def with_defaults(group: str, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Add the keys that the values of a configuration group lack.

    A function that takes a whole group as a mapping gets its defaults here, so that they stand in ``conf`` alone.

    Args:
        group: Folder below ``conf``.
        name: Name of the file that has the defaults.
        values: The values given; none of them is changed.

    Example:
        >>> with_defaults("saliency", "default", {"b": 0})["L"]
        10
    """
    usual = {key: value for key, value in read_choice(group, name).items() if value != "???"}
    return {**usual, **values}
