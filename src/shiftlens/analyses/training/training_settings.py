"""Defines and checks the settings of the shift callback: what is measured, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from shiftlens.attribution import MODES, TARGETS, Engine, parse_budget
from shiftlens.errors import ConfigError
from shiftlens.scores import check_levels
from shiftlens.scores.settings import Settings
from shiftlens.support.conf_files import with_defaults
from shiftlens.support.number_rules import COUNT, index_problems, is_count

PARTS = ("follow", "density", "rotation", "pairs")
Often = str | int
"""How often a part is measured: ``each`` look, ``ends`` (first and last), ``off``, or each k-th look."""


@dataclass(frozen=True)
class ShiftSettings:
    """Settings of :class:`shiftlens.callbacks.training.ShiftCurves`; the keys of ``conf/callbacks/shift.yaml``.

    Args:
        every: Number of optimizer steps between two looks; ``None`` for a quarter of the run.
        probes: Number of held-out prompts measured at each look; ``None`` for all.
        follow: How often followed instructions are counted in the probes' responses.
        density: How often responses are explained: instruction score, density by region, position profile.
        fixed: Whether each look also explains the responses of the first look.
        rotation: How often the concepts of feed-forward layers are computed.
        pairs: How often the word pairs of attention heads are computed.
        layers: Layers whose concepts and word pairs are computed; ``None`` for all.
        components: Number of concepts per layer.
        top_words: Number of words of a concept.
        top: Number of words per side and dimension of a head.
        examples: Number of prompts shown in the report with their responses.
        seed: Random seed for the bootstrap intervals, the relabellings and the random masks.
    """

    every: int | None = None
    probes: int | None = 34
    follow: Often = "each"
    density: Often = "each"
    fixed: bool = True
    rotation: Often = "each"
    pairs: Often = "ends"
    layers: list[int] | None = None
    components: int = 50
    top_words: int = 50
    top: int = 100
    examples: int = 4
    seed: int = 0

    def due(self, look: int, last: bool) -> list[str]:
        """Return the parts to measure at a look.

        Args:
            look: Number of the look, from 0.
            last: Whether this is the last look.

        Example:
            >>> ShiftSettings(rotation=2, pairs="ends", fixed=False).due(1, last=False)
            ['follow', 'density']
            >>> ShiftSettings(rotation=2, pairs="ends", follow="off").due(3, last=True)
            ['density', 'rotation', 'pairs']
        """
        due_parts = []
        for part in PARTS:
            often = getattr(self, part)
            stride = {"each": 1, "ends": 0}.get(often, often) if isinstance(often, str) else often
            if stride != "off" and (last or look == 0 or (stride and look % int(stride) == 0)):
                due_parts.append(part)
        return due_parts


def shift_settings(values: Mapping[str, Any]) -> ShiftSettings:
    """Check keys and values, and return them as settings.

    Args:
        values: Values by name of the setting; a missing key has its default.

    Raises:
        ConfigError: Some keys are not known or some values are invalid; the message lists all of them.

    Example:
        >>> shift_settings({"every": 0})
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: callbacks.shift.every=0: expected a whole number of at least 1
    """
    usual = {field.name: field.default for field in fields(ShiftSettings)}
    tail = f"no such key; known are {', '.join(usual)}"
    problems = [f"{key}: {tail}" for key in values if key not in usual] + _problems({**usual, **values})
    if problems:
        raise ConfigError("\n".join(f"callbacks.shift.{problem}" for problem in problems))
    return ShiftSettings(**values)


def _problems(values: Mapping[str, Any]) -> list[str]:
    counts = ["components", "top_words", "top", *(key for key in ("every", "probes") if values[key] is not None)]
    wrong = {key: COUNT for key in counts if not is_count(values[key])}
    for key in ("examples", "seed"):
        if not (is_count(values[key]) or (values[key] == 0 and not isinstance(values[key], bool))):
            wrong[key] = "expected a whole number of at least 0"
    for key in PARTS:
        if values[key] not in ("each", "ends", "off") and not is_count(values[key]):
            wrong[key] = "expected each, ends, off, or a whole number k for each k-th look"
    if not isinstance(values["fixed"], bool):
        wrong["fixed"] = "expected true or false"
    messages = [f"{key}={values[key]}: {why}" for key, why in wrong.items()]
    return messages + index_problems("layers", values["layers"])


def local_view(saliency: Mapping[str, Any]) -> tuple[Settings, Engine, int]:
    """Check the configuration group ``saliency``, and return what a look needs of it.

    Args:
        saliency: Values of the group; a missing key has its value in ``conf/saliency/default.yaml``.

    Returns:
        Values of L, b and p; the attribution engine; and the number of tokens generated together.

    Raises:
        ConfigError: Some values are invalid; the message lists all of them.

    Example:
        >>> local_view({"b": 3})[0]
        Settings(L=10, b=3, p=4)
    """
    saliency = with_defaults("saliency", "default", saliency)
    settings = Settings(saliency["L"], saliency["b"], saliency["p"])
    mode, target, tokens = saliency["mode"], saliency["target"], saliency["batch_tokens"]
    budget: float | int = 0
    problems = []
    try:
        check_levels(settings.L, settings.b, settings.p)
    except ValueError as error:
        problems.append(str(error))
    try:
        budget = parse_budget(saliency["memory_budget"])
    except ValueError as error:
        problems.append(f"memory_budget={error}")
    for key, value, known in (("mode", mode, MODES), ("target", target, TARGETS)):
        if value not in known:
            problems.append(f"{key}={value}: expected one of {', '.join(known)}")
    if not is_count(tokens):
        problems.append(f"batch_tokens={tokens}: {COUNT}")
    if problems:
        raise ConfigError("\n".join(f"saliency.{problem}" for problem in problems))
    return settings, Engine(mode, saliency["chunk"], target, budget), tokens
