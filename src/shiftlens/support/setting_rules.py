"""Checks settings against rules and reports all faults of a configuration at once, one line for each key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from shiftlens.errors import ConfigError

LARGEST = 2**31 - 1
"""Largest number of a rule without an upper bound: more than any count, yet no library overflows."""


class Rule(ABC):
    """What a setting may be."""

    @abstractmethod
    def expected(self, value: Any) -> str:
        """Describe what the setting should be, or return ``""`` for a value that fits.

        Args:
            value: Value of the setting, of any type.
        """


@dataclass(frozen=True)
class Number(Rule):
    """A finite number between two bounds; ``True`` and ``"3"`` are no numbers, and ``3.0`` is no whole number.

    Args:
        least: Smallest value.
        most: Largest value; ``None`` is :data:`LARGEST`.
        whole: Whether only whole numbers fit.
        above: Whether ``least`` itself is excluded.
        below: Whether ``most`` itself is excluded.
        optional: Whether ``None`` fits too.
        words: Texts that fit in place of a number.
        most_name: Other setting that ``most`` comes from, named in the message.

    Example:
        >>> Number(1).expected(3), Number(1).expected("3")
        ('', 'a whole number of at least 1')
        >>> Number(0, 1, whole=False, below=True).expected(float("nan"))
        'a number from 0 to below 1'
        >>> Number(16, 512, most_name="model.context").expected(600)
        'a whole number from 16 to model.context=512'
    """

    least: float | int
    most: float | int | None = None
    whole: bool = True
    above: bool = False
    below: bool = False
    optional: bool = False
    words: tuple[str, ...] = ()
    most_name: str = ""

    def expected(self, value: Any) -> str:
        """Describe what the setting should be, or return ``""`` for a value that fits."""
        if (value is None and self.optional) or (isinstance(value, str) and value in self.words):
            return ""
        if isinstance(value, int if self.whole else int | float) and not isinstance(value, bool):
            most = LARGEST if self.most is None else self.most
            is_enough = value > self.least if self.above else value >= self.least
            if is_enough and (value < most if self.below else value <= most):
                return ""
            if self.most is None and value > LARGEST:
                return f"{self._kind} of at most {LARGEST}"
        words = f", or one of {', '.join(self.words)}" if self.words else ""
        return f"{self._kind} {self._bounds}{words}{', or null' if self.optional else ''}"

    @property
    def _kind(self) -> str:
        return "a whole number" if self.whole else "a number"

    @property
    def _bounds(self) -> str:
        if self.most is None:
            return f"above {self.least}" if self.above else f"of at least {self.least}"
        most = f"{self.most_name}={self.most}" if self.most_name else str(self.most)
        if self.above:
            return f"above {self.least} and {'below' if self.below else 'at most'} {most}"
        return f"from {self.least} to {'below ' if self.below else ''}{most}"


SEED = Number(0, 2**32 - 1)
"""A random seed, as all libraries take it."""


@dataclass(frozen=True)
class Choice(Rule):
    """One of some texts.

    Args:
        options: The texts.

    Example:
        >>> Choice(("raise", "skip")).expected("ask")
        'one of raise, skip'
    """

    options: Sequence[str]

    def expected(self, value: Any) -> str:
        """Describe what the setting should be, or return ``""`` for a value that fits."""
        fits = isinstance(value, str) and value in self.options
        return "" if fits else f"one of {', '.join(self.options)}"


@dataclass(frozen=True)
class Some(Rule):
    """A list of one or more of some texts.

    Args:
        options: The texts.

    Example:
        >>> Some(("zero", "mean")).expected([])
        'a list of some of zero, mean'
    """

    options: Sequence[str]

    def expected(self, value: Any) -> str:
        """Describe what the setting should be, or return ``""`` for a value that fits."""
        fits = _is_list(value) and len(value) > 0 and all(one in self.options for one in value)
        return "" if fits else f"a list of some of {', '.join(self.options)}"


class Text(Rule):
    """A text that is not blank.

    Example:
        >>> Text().expected(" ")
        'a text'
    """

    def expected(self, value: Any) -> str:
        """Describe what the setting should be, or return ``""`` for a value that fits."""
        return "" if isinstance(value, str) and value.strip() else "a text"


class Shares(Rule):
    """A list of one or more shares above 0 and below 1, in ascending order.

    Example:
        >>> Shares().expected([0.1, 0.5]), Shares().expected([0.5, 0.1])
        ('', 'a list of numbers above 0 and below 1, in ascending order')
    """

    def expected(self, value: Any) -> str:
        """Describe what the setting should be, or return ``""`` for a value that fits."""
        share = Number(0, 1, whole=False, above=True, below=True)
        are_shares = _is_list(value) and len(value) > 0 and not any(share.expected(one) for one in value)
        if are_shares and all(one < two for one, two in pairwise(value)):
            return ""
        return "a list of numbers above 0 and below 1, in ascending order"


class Flag(Rule):
    """``True`` or ``False``.

    Example:
        >>> Flag().expected(1)
        'true or false'
    """

    def expected(self, value: Any) -> str:
        """Describe what the setting should be, or return ``""`` for a value that fits."""
        return "" if isinstance(value, bool) else "true or false"


class Indices(Rule):
    """A list of layers or heads, counted from 0; ``None`` is all of them.

    Example:
        >>> Indices().expected([0, -1]), Indices().expected(None)
        ('a list of whole numbers from 0, or null for all', '')
    """

    def expected(self, value: Any) -> str:
        """Describe what the setting should be, or return ``""`` for a value that fits."""
        if value is None or (_is_list(value) and not any(Number(0).expected(index) for index in value)):
            return ""
        return "a list of whole numbers from 0, or null for all"


def setting_problems(values: Mapping[str, Any], rules: Mapping[str, Rule], prefix: str = "") -> list[str]:
    """Check settings against rules; a setting without a rule, or that is not given, is not checked.

    Args:
        values: Settings by name.
        rules: Rules by name of the setting.
        prefix: Text before each name in the messages, such as ``annotator.``.

    Returns:
        One line for each setting that does not fit.

    Example:
        >>> setting_problems({"tries": "many", "wait": 1}, {"tries": Number(1), "wait": Number(1)}, "annotator.")
        ['annotator.tries=many: expected a whole number of at least 1']
    """
    return [
        f"{prefix}{name}={_shown(values[name])}: expected {expected}"
        for name, rule in rules.items()
        if name in values and (expected := rule.expected(values[name]))
    ]


def refuse(problems: Sequence[str]) -> None:
    """Raise one error that lists all problems; do nothing if there are none.

    Args:
        problems: One line each; a line that is there twice is reported once.

    Raises:
        ConfigError: There is a problem.
    """
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)  # Hydra has lists of its own


def _shown(value: Any) -> str:
    """A value as the user knows it; in quotes where a text could be taken for a number or for nothing."""
    if value is None:
        return "null"
    if not isinstance(value, str):
        return str(value)
    try:
        float(value)
    except ValueError:
        return value if value.strip() and value.isprintable() else repr(value)
    return repr(value)
