"""Defines and checks the settings of the shift callback: what is measured, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from shiftlens.support.setting_rules import SEED, Flag, Indices, Number, Rule, refuse, setting_problems

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


_OFTEN = Number(1, words=("each", "ends", "off"))
_RULES: dict[str, Rule] = {
    "every": Number(1, optional=True),
    "probes": Number(1, optional=True),
    **dict.fromkeys(PARTS, _OFTEN),
    "fixed": Flag(),
    "layers": Indices(),
    "components": Number(1),
    "top_words": Number(1),
    "top": Number(1),
    "examples": Number(0),
    "seed": SEED,
}


def shift_settings(values: Mapping[str, Any]) -> ShiftSettings:
    """Gather the settings of a training's looks from keys and values.

    Args:
        values: Keys as in ``conf/callbacks/shift.yaml``; a key that is missing has its default.

    Raises:
        ConfigError: Lists every key that is not known and every value that cannot be used.

    Example:
        >>> shift_settings({"every": 0})
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: callbacks.shift.every=0: expected a whole number of at least 1, or null
    """
    known = [field.name for field in fields(ShiftSettings)]
    unknown = [key for key in values if key not in known]
    problems = [f"callbacks.shift.{key}: no such key; known are {', '.join(known)}" for key in unknown]
    refuse(problems + setting_problems(values, _RULES, "callbacks.shift."))
    return ShiftSettings(**values)
