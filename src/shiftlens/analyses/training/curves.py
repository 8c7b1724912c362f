"""Curves of a model while it is tuned: every number of a look as one row of a long table.

A row is a :class:`Point`. Names are those of the analysis (``instruction_score``, ``density_context``, ...);
``fixed_`` before a name says that the responses read are those of the first look, so that a change of the model
and a change of the text are told apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from shiftlens.scores import position_profile
from shiftlens.scores.samples import BINS, Measured, samples_table

ALL = "all"
"""The group of a number that is about everything looked at."""
SCORES = ("instruction_score", "density_instruction", "density_context", "density_other")
"""Measures of one response, in the order in which they are told."""
TEXTS = {"own": "", "fixed": "fixed_"}
"""Whose responses are read -> what stands before the name of the measure."""


class Point(NamedTuple):
    """One number of one look.

    Args:
        step: optimizer steps done.
        measure: what was measured.
        group: of what: ``all``, a checker, a layer, a bin of the prompt or a quarter of the depth.
        value: the mean.
        std: standard deviation (ddof=1) of what it is the mean of; NaN where that is not known.
        n: how many it is the mean of.
    """

    step: int
    measure: str
    group: str
    value: float
    std: float
    n: int


def curves_table(points: Iterable[Point]) -> pd.DataFrame:
    """Points as a table: ``step, measure, group, value, std, n``.

    Example:
        >>> curves_table([Point(0, "follow_rate", "all", 0.5, 0.5, 2)])["value"].tolist()
        [0.5]
    """
    table = pd.DataFrame(list(points), columns=list(Point._fields))
    return table.astype({"step": "int64", "value": "float64", "std": "float64", "n": "int64"})


def mean_point(step: int, measure: str, group: str, values: Iterable[float]) -> list[Point]:
    """The mean of the numbers that are known, as a point; none where there is no number.

    Example:
        >>> mean_point(4, "x", "all", [1.0, 3.0, float("nan")])[0][3:]
        (2.0, 1.4142135623730951, 2)
    """
    known = np.array([value for value in values if not math.isnan(value)], float)
    if not len(known):
        return []
    std = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return [Point(step, measure, group, float(known.mean()), std, len(known))]


def checker(check: Mapping[str, Any]) -> str:
    """Name of a check; one that holds several is named by all of them.

    Example:
        >>> checker({"name": "all", "checks": [{"name": "bullets"}, {"name": "lowercase"}]})
        'bullets+lowercase'
    """
    return "+".join(map(checker, check["checks"])) if check["name"] == "all" else str(check["name"])


def follow_points(step: int, followed: Sequence[tuple[str, bool]]) -> list[Point]:
    """Share of followed responses, of all and by checker.

    Args:
        step: optimizer steps done.
        followed: for each response its checker, and whether it passed.

    Example:
        >>> [(p.group, p.value, p.n) for p in follow_points(0, [("words", True), ("words", False)])]
        [('all', 0.5, 2), ('words', 0.5, 2)]
    """
    groups: dict[str, list[float]] = {ALL: []}
    for name, passed in followed:
        for group in (ALL, name):
            groups.setdefault(group, []).append(float(passed))
    return [point for name, values in groups.items() for point in mean_point(step, "follow_rate", name, values)]


def density_points(step: int, measured: Sequence[Measured], text: str = "own") -> list[Point]:
    """Instruction score, density by region and position profile of some responses.

    Args:
        step: optimizer steps done.
        measured: the responses with their scores.
        text: ``own`` or ``fixed``.
    """
    samples, before = samples_table(measured), TEXTS[text]
    points = [p for name in SCORES for p in mean_point(step, before + name, ALL, samples[name].astype(float))]
    profiles = np.stack([position_profile(m.prompt_density, BINS) for m in measured])
    for place in range(BINS):
        points += mean_point(step, f"{before}profile", str(place), profiles[:, place].tolist())
    return points


def rotation_points(step: int, layers: Mapping[int, tuple[float, float, float]]) -> list[Point]:
    """How far the concepts of feed-forward layers turned since the first look.

    Args:
        step: optimizer steps done.
        layers: layer -> mean principal angle in degrees, mean ``|cosine|`` of matched concepts, and mean number
            of words that left a concept; ``(0, 1, 0)`` for a layer that did not change.

    Example:
        >>> [(p.measure, p.group, p.value) for p in rotation_points(3, {0: (2.0, 0.5, 1.0)})][:2]
        [('rotation_angle', 'all', 2.0), ('rotation_angle', '0', 2.0)]
    """
    points = []
    for place, name in enumerate(("rotation_angle", "rotation_cosine", "rotation_left")):
        values = {layer: numbers[place] for layer, numbers in layers.items()}
        points += mean_point(step, name, ALL, values.values())
        points += [Point(step, name, str(layer), value, math.nan, 1) for layer, value in values.items()]
    return points


def pair_points(step: int, shares: pd.DataFrame, heads: Mapping[str, int]) -> list[Point]:
    """Word pairs with verbs since the first look: heads that gained less heads that lost, as a share of all heads.

    It is 0 where nothing changed. (The paper's share leaves out heads without change, and so is not known there;
    it is in the table ``verb_shares``.)

    Args:
        step: optimizer steps done.
        shares: table of :func:`shiftlens.analyses.word_pairs.compute.verb_shares`, first look against now.
        heads: part of the depth -> number of heads looked at in it.

    Returns:
        Means over verbs ``pairs_instruction`` and ``pairs_general``, for each part of the depth.

    Example:
        >>> table = pd.DataFrame({"kind": ["general"] * 2, "layers": "1", "more": [3, 0], "fewer": [0, 1]})
        >>> [(p.measure, p.group, p.value) for p in pair_points(9, table, {"1": 4})]
        [('pairs_general', '1', 0.25)]
    """
    points = []
    for (kind, part), rows in shares.groupby(["kind", "layers"], sort=False):
        net: Float[np.ndarray, " verbs"] = (rows["more"] - rows["fewer"]).to_numpy(float) / heads[str(part)]
        points += mean_point(step, f"pairs_{kind}", str(part), net.tolist())
    return points


def logged(points: Iterable[Point]) -> dict[str, float]:
    """The names under which loggers get the points of a look.

    Example:
        >>> logged([Point(0, "follow_rate", "all", 0.5, 0.5, 2), Point(0, "profile", "3", 0.25, 0.1, 2)])
        {'during/follow_rate': 0.5, 'during/profile/3': 0.25}
    """
    names = {p: f"during/{p.measure}" + ("" if p.group == ALL else f"/{p.group}") for p in points}
    return {name: p.value for p, name in names.items()}
