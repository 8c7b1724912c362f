"""Reads the configuration group ``saliency``: how responses are explained and how importance becomes a score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shiftlens.attribution import MODES, TARGETS, Engine, parse_budget
from shiftlens.attribution.foils import FOILS
from shiftlens.attribution.methods import METHODS, Method, methods_from_config
from shiftlens.errors import ConfigError
from shiftlens.prompts.units import UNITS
from shiftlens.scores.importance import NEGATIVE
from shiftlens.scores.settings import Settings, level_problems
from shiftlens.support.conf_files import with_defaults
from shiftlens.support.setting_rules import Choice, Flag, Number, Text, refuse, setting_problems

UNIT_CHOICES = ("auto", "token", *UNITS)
"""What is removed at once; ``auto`` is a token, and a sentence where token by token would cost too much."""
INPUTS = ("prompt", "all")
"""Which tokens before the response are sources: those of the user's text, or template and system tokens too."""

_RULES = {
    "target": Choice(TARGETS),
    "foil": Text(),
    "unit": Choice(UNIT_CHOICES),
    "negative": Choice(NEGATIVE),
    "over_methods": Flag(),
    "inputs": Choice(INPUTS),
    "include_response": Flag(),
    "mode": Choice(MODES),
    "chunk": Number(1, optional=True),
    "batch_tokens": Number(1),
    "check_precision": Number(0),
    "costs": Choice(("default", "measured")),
}


@dataclass(frozen=True)
class SaliencyOptions:
    """The configuration group ``saliency`` as values that fit.

    Args:
        settings: L, b and p.
        engine: Engine that explains responses.
        foil: What logit differences are taken to, one of :data:`~shiftlens.attribution.foils.FOILS` or a text.
        methods: What the importance of a prompt token is; the first method is the headline.
        unit: What is removed at once by methods that take units, one of :data:`UNIT_CHOICES`.
        negative: What negative importance counts as, one of :data:`NEGATIVE`.
        over_methods: Whether the headline's p-values are corrected for the choice among the methods too.
        batch_tokens: Prompt and response tokens whose responses are generated together.
        inputs: Which tokens before the response are sources, one of :data:`INPUTS`.
        include_response: Whether earlier response tokens are sources too.
        check_precision: Number of samples also explained in float32 where the precision is reduced.
        measure_costs: Whether the mode of the engine is chosen by costs measured on this machine.
    """

    settings: Settings
    engine: Engine
    foil: str
    methods: tuple[Method, ...]
    unit: str
    negative: str
    over_methods: bool
    batch_tokens: int
    inputs: str
    include_response: bool
    check_precision: int
    measure_costs: bool


def saliency_problems(saliency: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """Check every setting of the group, and the b of the maps, which depends on it.

    Args:
        saliency: Values of the group; a missing key has its value in ``conf/saliency/default.yaml``.
        report: Configuration group ``report``, ``{}`` where there are no maps.

    Returns:
        One line for each setting that cannot be used.

    Example:
        >>> saliency_problems({"chunk": "many", "memory_budget": 0.5}, {})
        ['saliency.chunk=many: expected a whole number of at least 1, or null']
    """
    saliency = with_defaults("saliency", "default", saliency)
    problems = level_problems(saliency, report) + setting_problems(saliency, _RULES, "saliency.")
    if saliency["foil"] != FOILS[0] and saliency["target"] != "logit_difference":
        problems.append(f"saliency.foil={saliency['foil']}: needs saliency.target=logit_difference")
    try:
        parse_budget(saliency["memory_budget"])
    except ValueError as error:
        problems.append(f"saliency.memory_budget={error}")
    wanted = [(name, {name: saliency[name]}) for name in METHODS if name in saliency]
    # Settings of methods that are not in use are checked too.
    for value, settings in (*wanted, (saliency["method"], saliency)):
        try:
            methods_from_config(value, settings)
        except ConfigError as error:
            problems += str(error).splitlines()
    return problems


def saliency_options(saliency: Mapping[str, Any]) -> SaliencyOptions:
    """Gather the settings of the group.

    Args:
        saliency: Values of the group; a missing key has its value in ``conf/saliency/default.yaml``.

    Raises:
        ConfigError: Lists every setting that cannot be used.

    Example:
        >>> saliency_options({"b": 3}).settings
        Settings(L=10, b=3, p=4)
    """
    refuse(saliency_problems(saliency, {}))
    values = with_defaults("saliency", "default", saliency)
    budget = parse_budget(values["memory_budget"])
    return SaliencyOptions(
        settings=Settings(values["L"], values["b"], values["p"]),
        engine=Engine(values["mode"], values["chunk"], values["target"], budget),
        foil=values["foil"],
        methods=methods_from_config(values["method"], values),
        unit=values["unit"],
        negative=values["negative"],
        over_methods=values["over_methods"],
        batch_tokens=values["batch_tokens"],
        inputs=values["inputs"],
        include_response=values["include_response"],
        check_precision=values["check_precision"],
        measure_costs=values["costs"] == "measured",
    )
