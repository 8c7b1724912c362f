"""Makes the callbacks of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from lightning.pytorch import Callback

from shiftlens.callbacks import View
from shiftlens.errors import ConfigError, ShiftLensError
from shiftlens.support.setting_rules import setting_problems


def make_callbacks(nodes: Mapping[str, Any] | None) -> tuple[list[Callback], list[str]]:
    """Instantiate callbacks, and collect the settings that they cannot use.

    Args:
        nodes: Name -> node with ``_target_``.

    Returns:
        The callbacks that could be made, and one line for each setting that cannot be used.

    Raises:
        ShiftLensError: A callback cannot be made for another reason.
    """
    callbacks: list[Callback] = []
    problems: list[str] = []
    for name, node in (nodes or {}).items():
        rules = getattr(get_class(node["_target_"]), "rules", {})
        if wrong := setting_problems(node, rules, f"callbacks.{name}."):
            problems += wrong
            continue
        try:
            callback = instantiate(node)
        except InstantiationException as error:
            cause = error.__cause__
            if isinstance(cause, ConfigError):
                problems += str(cause).splitlines()
            elif isinstance(cause, ShiftLensError):
                raise cause from None
            else:
                raise
        else:
            callbacks.append(callback)
            problems += callback.problems() if isinstance(callback, View) else []
    return callbacks, problems
