"""Checks that the plugin of a launcher is installed, because Hydra's own error does not say what to install."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from shiftlens.errors import ConfigError

_NEEDS = {
    "joblib": ("hydra_joblib_launcher", "joblib"),
    "ray": ("hydra_ray_launcher", "ray"),
    "slurm": ("hydra_submitit_launcher", "slurm"),
    "slurm_local": ("hydra_submitit_launcher", "slurm"),
}


def has_launcher(name: str) -> bool:
    """Tell whether the plugin of a launcher is installed; true for Hydra's own launchers, which need no plugin.

    Args:
        name: Name of the launcher.

    Example:
        >>> has_launcher("local")
        True
    """
    if name not in _NEEDS:
        return True
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{_NEEDS[name][0]}") is not None


def check_launcher(words: Iterable[str]) -> None:
    """Check that the launcher chosen by ``launcher=NAME`` on the command line is installed.

    Args:
        words: Arguments of the command line.

    Raises:
        ConfigError: The launcher's plugin is not installed; the message says how to install the plugin.
    """
    for word in words:
        key, _, name = word.partition("=")
        if key == "launcher" and not has_launcher(name):
            raise ConfigError(
                f"launcher={name} needs a plugin of Hydra: pip install 'shiftlens[{_NEEDS[name][1]}]'"
            )
