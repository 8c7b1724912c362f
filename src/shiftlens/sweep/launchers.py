"""Which launcher needs which plugin: Hydra's own error lists search paths and not what to install."""

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
    """Whether the plugin of a launcher is installed; those without one are Hydra's own.

    Example:
        >>> has_launcher("local")
        True
    """
    if name not in _NEEDS:
        return True
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{_NEEDS[name][0]}") is not None


def check_launcher(words: Iterable[str]) -> None:
    """Look for ``launcher=NAME`` among the words of a command line.

    Args:
        words: the command line.

    Raises:
        ConfigError: its plugin is not installed; says how to install it.
    """
    for word in words:
        key, _, name = word.partition("=")
        if key == "launcher" and not has_launcher(name):
            raise ConfigError(
                f"launcher={name} needs a plugin of Hydra: pip install 'shiftlens[{_NEEDS[name][1]}]'"
            )
