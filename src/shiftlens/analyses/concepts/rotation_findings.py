"""Measures how far tuning rotated the concepts of feed-forward layers, and compares it with random rotations.

The paper concludes from descriptions of concepts that tuning rotates the knowledge. Here the rotation itself is
measured. The unit is the layer, because concepts of one layer are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from shiftlens.analyses.concepts.findings import layer_bootstrap
from shiftlens.results.finding import Finding, Group
from shiftlens.stats.multiple_testing import holm
from shiftlens.stats.result import group
from shiftlens.weights import Rotation, RotationNull
from shiftlens.weights.by_layer import ModelConcepts
from shiftlens.weights.depth import depth_parts

RESAMPLES = 9999
_LEVELS = {"low": 2.5, "high": 97.5}


def rotation_tables(
    base: ModelConcepts, tuned: ModelConcepts, rotations: Mapping[int, Rotation], null: RotationNull
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build the tables of the rotation of each concept and each layer, with the values of random subspaces.

    Args:
        base: Concepts of the base model.
        tuned: Concepts of the tuned model.
        rotations: Comparison of base and tuned concepts, by layer.
        null: Random subspaces of the same size.

    Returns:
        Two tables; all angles are in degrees.

        ``rotation``, one row per base concept: ``layer, component, matched, cosine, entered, left, n_entered,
        n_left``; ``angle, null_angle_low, null_angle_high``, which belong to the layer and not to the concept: the
        layer's principal angles in rising order; and ``null_cosine_low, null_cosine_high`` of single matched
        concepts (2.5 and 97.5 %).

        ``rotation_layers``, one row per layer: ``layer, components, width``; ``equal``, whether all components are
        exactly equal; ``mean_cosine, mean_angle, overlap, mean_left`` (words that left a concept); and for the
        means of cosine, angle and overlap ``null_..._low``, ``..._mean`` and ``..._high``.
    """
    angles, chance = np.degrees(null.angles), null_means(null)
    low, high = np.percentile(angles, [2.5, 97.5], axis=0)
    cosine_low, cosine_high = np.percentile(null.cosine, [2.5, 97.5]).tolist()
    concepts, layers = [], []
    for layer, turned in rotations.items():
        cosine = turned.cosine.astype(float).clip(max=1.0)  # rounding in float32 can give cosines above 1
        before, after = base.layers[layer].words, tuned.layers[layer].words[turned.match]
        left = [[base.words[i] for i in words[gone]] for words, gone in zip(before, turned.left, strict=True)]
        entered = [[tuned.words[i] for i in words[new]] for words, new in zip(after, turned.entered, strict=True)]
        concepts.append(
            pd.DataFrame({
                "layer": layer, "component": np.arange(len(turned.match)), "matched": turned.match,
                "cosine": cosine, "entered": entered, "left": left,
                "n_entered": turned.entered.sum(axis=1), "n_left": turned.left.sum(axis=1),
                "angle": np.degrees(turned.angles), "null_angle_low": low, "null_angle_high": high,
                "null_cosine_low": cosine_low, "null_cosine_high": cosine_high,
            })
        )  # fmt: skip
        layers.append({
            "layer": layer, "components": len(turned.match), "width": base.layers[layer].components.shape[1],
            "equal": np.array_equal(base.layers[layer].components, tuned.layers[layer].components),
            "mean_cosine": float(cosine.mean()), "mean_angle": float(np.degrees(turned.angles).mean()),
            "overlap": turned.overlap, "mean_left": float(turned.left.sum(axis=1).mean()),
            **{f"null_{name}_{level}": value for name, values in chance.items() for level, value in _band(values)},
        })  # fmt: skip
    return pd.concat(concepts, ignore_index=True), pd.DataFrame(layers)


def null_means(null: RotationNull) -> dict[str, Float[np.ndarray, " draws"]]:
    """Return [draws] the means over a layer for random subspaces.

    Returns:
        ``cosine`` of matched concepts, ``angle`` in degrees, and ``overlap``.
    """
    return {
        "cosine": null.cosine.mean(axis=1),
        "angle": np.degrees(null.angles).mean(axis=1),
        "overlap": (np.cos(null.angles) ** 2).mean(axis=1),
    }


def _band(values: Float[np.ndarray, " draws"]) -> list[tuple[str, float]]:
    edges = [(level, float(np.percentile(values, q))) for level, q in _LEVELS.items()]
    return [*edges, ("mean", float(values.mean()))]


def rotation_findings(layers: pd.DataFrame, depth: int, null: RotationNull, seed: int = 0) -> list[Finding]:
    """Test whether tuned concepts are nearer to the base concepts than random ones, in all layers and by quarter.

    A Monte Carlo test with the layer as unit compares the mean matched cosine of the layers with the means of
    equally many random rotations. The p-values of the quarters of the depth are corrected by Holm's method.

    Args:
        layers: Table ``rotation_layers`` of :func:`rotation_tables`.
        depth: Number of layers of the model.
        null: Random subspaces of the same size.
        seed: Random seed for the resampling.

    Returns:
        Finding of all layers, then one of each quarter of the depth.
    """
    chance = null_means(null)
    by_part = {}
    for name, in_part in depth_parts(layers["layer"].tolist(), depth).items():
        rows = layers[in_part]
        cosine = rows["mean_cosine"].to_numpy(float)
        drawn = np.random.default_rng(seed).choice(chance["cosine"], (RESAMPLES, len(rows))).mean(axis=1)
        note = (
            f"mean principal angle {rows['mean_angle'].mean():.1f} degrees, by chance "
            f"{chance['angle'].mean():.1f}; {rows['mean_left'].mean():.1f} words left a concept on average"
        )
        turned = not rows["equal"].all()
        by_part[name] = _finding(
            name,
            n=len(rows),
            groups={"pair": group(cosine), "random rotation": group(chance["cosine"])},
            effect=float(cosine.mean()),
            ci=layer_bootstrap(cosine, np.arange(len(rows)), seed) if turned else None,
            p=float((1 + (drawn >= cosine.mean()).sum()) / (1 + RESAMPLES)) if turned else None,
            note=note if turned else "",
            why_not="" if turned else "base and tuned have the same concepts, nothing turned",
        )
    return [by_part.pop("all"), *holm(list(by_part.values()), "quarters of the depth")]


def not_comparable(why_not: str) -> Finding:
    """Return the finding for models whose concepts cannot be compared.

    Args:
        why_not: Reason why the concepts cannot be compared.

    Example:
        >>> not_comparable("base has 2 layers, tuned 3").why_not
        'base has 2 layers, tuned 3'
    """
    return _finding("all", 0, {}, None, None, None, why_not=why_not)


def _finding(
    part: str,
    n: int,
    groups: Mapping[str, Group],
    effect: float | None,
    ci: tuple[float, float] | None,
    p: float | None,
    note: str = "",
    why_not: str = "",
) -> Finding:
    where = "all layers" if part == "all" else f"quarter {part} of the depth"
    return Finding(
        name=f"concepts/rotation/{part}",
        view="concepts",
        data="feed-forward layers",
        role="both",
        question=f"Are tuned concepts nearer to those of the base than a random rotation leaves them? ({where})",
        null="tuned concepts span a random subspace: mean |cosine| of matched concepts is that of random ones",
        test="Monte Carlo over random rotations, one-sided; the unit is the layer",
        n=n,
        groups=groups,
        effect=effect,
        effect_name="mean matched |cosine|",
        ci=ci,
        p=p,
        note=note,
        why_not=why_not,
        measure=f"mean |cosine| of a base concept and its tuned match ({where})",
        expected="pair",
        headline=part == "all",
    )
