"""Checks numeric settings against rules, so that all faults are reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """Allowed values of a setting.

    Args:
        least: Smallest allowed value.
        whole: Whether only whole numbers are allowed.
        optional: Whether ``None`` is allowed.
    """

    least: float | int
    whole: bool = True
    optional: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind}, {self.least} or more{', or null' if self.optional else ''}"


def number_problems(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> list[str]:
    """Return a message for every setting that violates its rule; settings without a rule are not checked.

    Args:
        values: Settings by name.
        rules: Rules by name of the setting.

    Example:
        >>> number_problems({"tries": "many", "wait": 0.5}, {"tries": Rule(1), "wait": Rule(0, whole=False)})
        ['annotator.tries=many: expected a whole number, 1 or more']
    """
    return [
        f"annotator.{name}={values[name]}: expected {rule}"
        for name, rule in rules.items()
        if name in values and not _fits(values[name], rule)
    ]


def _fits(value: Any, rule: Rule) -> bool:
    if value is None:
        return rule.optional
    kinds = (int,) if rule.whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and value >= rule.least


COUNT = "expected a whole number of at least 1"


def is_count(value: object) -> bool:
    """Whether a setting is a whole number of at least 1.

    Example:
        >>> is_count(3), is_count(0), is_count("3")
        (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def index_problems(key: str, numbers: Any) -> list[str]:
    """What is wrong with a choice of layers or heads, in words.

    Example:
        >>> index_problems("layers", [0, -1]), index_problems("layers", None)
        (['layers=[0, -1]: expected a list of whole numbers from 0, or null for all'], [])
    """
    if numbers is None or (isinstance(numbers, list) and all(n == 0 or is_count(n) for n in numbers)):
        return []
    return [f"{key}={numbers}: expected a list of whole numbers from 0, or null for all"]
