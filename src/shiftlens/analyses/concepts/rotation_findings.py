"""How far tuning rotated what feed-forward layers know, against what random rotations would show.

"Tuning rotates the knowledge", says the paper of the descriptions of concepts. Here the rotation is measured; the
unit is the layer, as concepts of one layer are not independent.
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
    """How far each concept and each layer turned, beside what random subspaces show. Angles are in degrees.

    Args:
        base: concepts of the base.
        tuned: those of the tuned model.
        rotations: layer -> their comparison.
        null: random subspaces of the same size.

    Returns:
        ``rotation``, one row per base concept: ``layer, component, matched, cosine, entered, left, n_entered,
        n_left``; of the layer, not of the concept, its principal angles in rising order ``angle, null_angle_low,
        null_angle_high``; and ``null_cosine_low, null_cosine_high`` of single matched concepts (2.5 and 97.5 %).

        ``rotation_layers``, one row per layer: ``layer, components, width, equal`` (number by number),
        ``mean_cosine, mean_angle, overlap, mean_left`` (words that left a concept), and for the means of cosine,
        angle and overlap ``null_..._low``, ``..._mean`` and ``..._high``.
    """
    angles, chance = np.degrees(null.angles), null_means(null)
    low, high = np.percentile(angles, [2.5, 97.5], axis=0)
    cosine_low, cosine_high = np.percentile(null.cosine, [2.5, 97.5]).tolist()
    concepts, layers = [], []
    for layer, turned in rotations.items():
        cosine = turned.cosine.astype(float).clip(max=1.0)  # unit vectors in float32 are so up to rounding
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
    """[draws] means over a layer under random rotation: matched ``cosine``, ``angle`` in degrees, ``overlap``."""
    return {
        "cosine": null.cosine.mean(axis=1),
        "angle": np.degrees(null.angles).mean(axis=1),
        "overlap": (np.cos(null.angles) ** 2).mean(axis=1),
    }


def _band(values: Float[np.ndarray, " draws"]) -> list[tuple[str, float]]:
    edges = [(level, float(np.percentile(values, q))) for level, q in _LEVELS.items()]
    return [*edges, ("mean", float(values.mean()))]


def rotation_findings(layers: pd.DataFrame, depth: int, null: RotationNull, seed: int = 0) -> list[Finding]:
    """Are tuned concepts still those of the base, in all layers and in each quarter of the depth?

    A Monte Carlo test with the layer as unit: the mean matched cosine of the layers against means of equally many
    random rotations. The quarters are corrected for being several.

    Args:
        layers: ``rotation_layers`` of :func:`rotation_tables`.
        depth: number of layers of the model.
        null: random subspaces of the same size.
        seed: of the resampling.
    """
    chance = null_means(null)
    found = {}
    for name, part in depth_parts(layers["layer"].tolist(), depth).items():
        rows = layers[part]
        cosine = rows["mean_cosine"].to_numpy(float)
        drawn = np.random.default_rng(seed).choice(chance["cosine"], (RESAMPLES, len(rows))).mean(axis=1)
        note = (
            f"mean principal angle {rows['mean_angle'].mean():.1f} degrees, by chance "
            f"{chance['angle'].mean():.1f}; {rows['mean_left'].mean():.1f} words left a concept on average"
        )
        turned = not rows["equal"].all()
        found[name] = _finding(
            name,
            n=len(rows),
            groups={"pair": group(cosine), "random rotation": group(chance["cosine"])},
            effect=float(cosine.mean()),
            ci=layer_bootstrap(cosine, np.arange(len(rows)), seed) if turned else None,
            p=float((1 + (drawn >= cosine.mean()).sum()) / (1 + RESAMPLES)) if turned else None,
            note=note if turned else "",
            why_not="" if turned else "base and tuned have the same concepts, nothing turned",
        )
    return [found.pop("all"), *holm(list(found.values()), "quarters of the depth")]


def not_comparable(why_not: str) -> Finding:
    """The finding where base and tuned have no concepts to compare.

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
