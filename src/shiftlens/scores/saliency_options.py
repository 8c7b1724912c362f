"""Reads the configuration group ``saliency``: how responses are explained and how importance becomes a score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shiftlens.attribution import BATCH_TOKENS, MODES, TARGETS, Engine, parse_budget
from shiftlens.scores.settings import Settings, level_problems
from shiftlens.support.setting_rules import Choice, Flag, Number, refuse, setting_problems

_RULES = {
    "target": Choice(TARGETS),
    "include_response": Flag(),
    "mode": Choice(MODES),
    "chunk": Number(1, optional=True),
    "batch_tokens": Number(1),
    "check_precision": Number(0),
}


@dataclass(frozen=True)
class SaliencyOptions:
    """The configuration group ``saliency`` as values that fit.

    Args:
        settings: L, b and p.
        engine: Engine that explains responses.
        batch_tokens: Prompt and response tokens whose responses are generated together.
        include_response: Whether earlier response tokens are sources too.
        check_precision: Number of samples also explained in float32 where the precision is reduced.
    """

    settings: Settings
    engine: Engine
    batch_tokens: int
    include_response: bool
    check_precision: int


def saliency_problems(saliency: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """Check every setting of the group, and the b of the maps, which depends on it.

    Args:
        saliency: Keys as in ``conf/saliency``; a key that is missing has its default.
        report: Configuration group ``report``, ``{}`` where there are no maps.

    Returns:
        One line for each setting that cannot be used.

    Example:
        >>> saliency_problems({"chunk": "many", "memory_budget": 0.5}, {})
        ['saliency.chunk=many: expected a whole number of at least 1, or null']
    """
    problems = level_problems(saliency, report) + setting_problems(saliency, _RULES, "saliency.")
    try:
        parse_budget(saliency.get("memory_budget", Engine.memory_budget))
    except ValueError as error:
        problems.append(f"saliency.memory_budget={error}")
    return problems


def saliency_options(saliency: Mapping[str, Any]) -> SaliencyOptions:
    """Gather the settings of the group.

    Args:
        saliency: Keys as in ``conf/saliency``; a key that is missing has its default.

    Raises:
        ConfigError: Lists every setting that cannot be used.

    Example:
        >>> saliency_options({"b": 3}).settings
        Settings(L=10, b=3, p=4)
    """
    refuse(saliency_problems(saliency, {}))
    return SaliencyOptions(
        settings=Settings(**{key: saliency[key] for key in ("L", "b", "p") if key in saliency}),
        engine=Engine(
            saliency.get("mode", Engine.mode),
            saliency.get("chunk"),
            saliency.get("target", Engine.target),
            parse_budget(saliency.get("memory_budget", Engine.memory_budget)),
        ),
        batch_tokens=saliency.get("batch_tokens", BATCH_TOKENS),
        include_response=saliency.get("include_response", False),
        check_precision=saliency.get("check_precision", 0),
    )
