"""Settings of the sparse score and the importance density: L, b and p."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shiftlens.support.setting_rules import Number, setting_problems

L_RULE = Number(1, 255)
"""Rule for L: a sparse score is stored in one byte."""


@dataclass(frozen=True)
class Settings:
    """The three choices of the paper's local view.

    Args:
        L: Number of levels of the sparse score.
        b: Largest level set to 0.
        p: Order of the norm in the density.
    """

    L: int = 10
    b: int = 7
    p: float | int = 4


def level_problems(saliency: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """Check L, p, and the b of the tests and of the maps, which depends on L.

    Args:
        saliency: Configuration group ``saliency``; a key that is missing has its default.
        report: Configuration group ``report``; its ``b`` is that of the maps.

    Returns:
        One line for each setting that cannot be used.

    Example:
        >>> level_problems({"L": 10, "b": 7, "p": 4}, {"b": 10})
        ['report.b=10: expected a whole number from 0 to saliency.L-1=9']
    """
    L = saliency.get("L", Settings.L)
    most = 254 if L_RULE.expected(L) else L - 1
    level = Number(0, most, most_name="saliency.L-1")
    rules = {"L": L_RULE, "b": level, "p": Number(1, whole=False)}
    return [*setting_problems(saliency, rules, "saliency."), *setting_problems(report, {"b": level}, "report.")]
