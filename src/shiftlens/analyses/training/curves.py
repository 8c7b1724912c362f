"""Builds the curves of a model under training: a long table with one row for each number of each look.

A row is a :class:`Point`. Names are those of the analysis (``instruction_score``, ``density_context``, ...). The
prefix ``fixed_`` marks numbers for the responses of the first look: they separate a change of the model from a
change of the responses.
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
"""Group of a number that covers everything measured."""
SCORES = ("instruction_score", "density_instruction", "density_context", "density_other")
"""Measures of one response, in the order of the table."""
TEXTS = {"own": "", "fixed": "fixed_"}
"""Prefix of the measure's name, by kind of responses: ``own`` of this look, or ``fixed`` from the first look."""


class Point(NamedTuple):
    """One number of one look.

    Args:
        step: Number of optimizer steps done.
        measure: Name of the measure.
        group: Group that is measured: ``all``, a checker, a layer, a bin of the prompt or a quarter of the depth.
        value: Mean over the group.
        std: Standard deviation (ddof=1) over the group; NaN where it is not known.
        n: Number of values in the group.
    """

    step: int
    measure: str
    group: str
    value: float
    std: float
    n: int


def curves_table(points: Iterable[Point]) -> pd.DataFrame:
    """Return points as a table: ``step, measure, group, value, std, n``.

    Example:
        >>> curves_table([Point(0, "follow_rate", "all", 0.5, 0.5, 2)])["value"].tolist()
        [0.5]
    """
    table = pd.DataFrame(list(points), columns=list(Point._fields))
    return table.astype({"step": "int64", "value": "float64", "std": "float64", "n": "int64"})


def mean_point(step: int, measure: str, group: str, values: Iterable[float]) -> list[Point]:
    """Return the mean of the values that are not NaN as one point; no point if there is no such value.

    Args:
        step: Number of optimizer steps done.
        measure: Name of the measure.
        group: Group that is measured.
        values: Values of the group; NaN where not known.

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
    """Return the name of a check; the name of a combined check is made of the names of its checks.

    Example:
        >>> checker({"name": "all", "checks": [{"name": "bullets"}, {"name": "lowercase"}]})
        'bullets+lowercase'
    """
    return "+".join(map(checker, check["checks"])) if check["name"] == "all" else str(check["name"])


def follow_points(step: int, followed: Sequence[tuple[str, bool]]) -> list[Point]:
    """Return the share of responses that pass their check, over all responses and by checker.

    Args:
        step: Number of optimizer steps done.
        followed: Checker of each response, and whether the response passed.

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
    """Return instruction score, density by region and position profile of some responses.

    Args:
        step: Number of optimizer steps done.
        measured: Responses with their scores.
        text: Kind of responses, ``own`` or ``fixed``.
    """
    samples, before = samples_table(measured), TEXTS[text]
    points = [p for name in SCORES for p in mean_point(step, before + name, ALL, samples[name].astype(float))]
    profiles = np.stack([position_profile(m.prompt_density, BINS) for m in measured])  # [responses, bins]
    for i in range(BINS):
        points += mean_point(step, f"{before}profile", str(i), profiles[:, i].tolist())
    return points


def rotation_points(step: int, layers: Mapping[int, tuple[float, float, float]]) -> list[Point]:
    """Return how far the concepts of feed-forward layers rotated since the first look.

    Args:
        step: Number of optimizer steps done.
        layers: For each layer the mean principal angle in degrees, the mean ``|cosine|`` of matched concepts, and
            the mean number of words that left a concept; ``(0, 1, 0)`` for a layer that did not change.

    Example:
        >>> [(p.measure, p.group, p.value) for p in rotation_points(3, {0: (2.0, 0.5, 1.0)})][:2]
        [('rotation_angle', 'all', 2.0), ('rotation_angle', '0', 2.0)]
    """
    points = []
    for i, name in enumerate(("rotation_angle", "rotation_cosine", "rotation_left")):
        values = {layer: numbers[i] for layer, numbers in layers.items()}
        points += mean_point(step, name, ALL, values.values())
        points += [Point(step, name, str(layer), value, math.nan, 1) for layer, value in values.items()]
    return points


def pair_points(step: int, shares: pd.DataFrame, heads: Mapping[str, int]) -> list[Point]:
    """Return the net share of heads that gained word pairs with verbs since the first look.

    The net share is the number of heads that gained pairs minus the number that lost pairs, divided by the number
    of all heads. It is 0 where nothing changed. (The paper's share leaves out heads without change, and so is not
    defined where nothing changed; it is in the table ``verb_shares``.)

    Args:
        step: Number of optimizer steps done.
        shares: Table of :func:`shiftlens.analyses.word_pairs.compute.verb_shares`, first look against this look.
        heads: Number of analyzed heads in each part of the depth.

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
    """Return the values of the points of a look, by the names under which they are logged.

    Example:
        >>> logged([Point(0, "follow_rate", "all", 0.5, 0.5, 2), Point(0, "profile", "3", 0.25, 0.1, 2)])
        {'during/follow_rate': 0.5, 'during/profile/3': 0.25}
    """
    names = {p: f"during/{p.measure}" + ("" if p.group == ALL else f"/{p.group}") for p in points}
    return {name: p.value for p, name in names.items()}
