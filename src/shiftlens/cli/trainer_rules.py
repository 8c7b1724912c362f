"""Rules for the arguments of the Lightning ``Trainer`` that the configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shiftlens.support.setting_rules import Number, Rule, setting_problems


class Devices(Rule):
    """A number of devices, ``auto`` or -1 for all, or which ones: ``[0, 2]``, ``"0,2"``.

    Example:
        >>> Devices().expected(0)
        'a number of devices of at least 1, auto, or a list such as [0, 2]'
    """

    def expected(self, value: Any) -> str:
        """Describe what the setting should be, or return ``""`` for a value that fits."""
        if isinstance(value, str):
            fits = value == "auto" or ("," in value and all(one.strip().isdecimal() for one in value.split(",")))
        elif isinstance(value, list):
            fits = len(value) > 0 and not any(Number(0).expected(one) for one in value)
        else:
            fits = not isinstance(value, float) and (value == -1 or not Number(1).expected(value))
        return "" if fits else "a number of devices of at least 1, auto, or a list such as [0, 2]"


def trainer_problems(trainer: Mapping[str, Any]) -> list[str]:
    """Check the numbers of devices and machines; all other arguments are checked by Lightning.

    Args:
        trainer: Configuration group ``trainer``.

    Returns:
        One line for each argument that cannot be used.

    Example:
        >>> trainer_problems({"devices": 2, "num_nodes": 0})
        ['trainer.num_nodes=0: expected a whole number of at least 1']
    """
    return setting_problems(trainer, {"devices": Devices(), "num_nodes": Number(1)}, "trainer.")
