"""Settings of the sparse score and the importance density: L, b and p."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shiftlens.scores.importance import check_levels


@dataclass(frozen=True)
class Settings:
    """The three choices of the paper's local view.

    Args:
        L: levels of the sparse score.
        b: largest level set to 0.
        p: order of the norm in the density.
    """

    L: int = 10
    b: int = 7
    p: float | int = 4


def level_problems(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with L, p and the two b of a configuration, in words.

    Args:
        config: plain values, with groups ``saliency`` and ``report``.

    Example:
        >>> level_problems({"saliency": {"L": 10, "b": 7, "p": 4}, "report": {"b": 0}})
        []
    """
    problems = []
    for group in ("saliency", "report"):
        try:
            check_levels(config["saliency"]["L"], config[group]["b"], config["saliency"]["p"])
        except ValueError as error:
            problems.append(f"{group}: {error}")
    return problems
