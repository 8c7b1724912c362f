"""Tests whether tuning changed the topics of feed-forward layers, with annotated concepts of both models in pairs.

The paper annotates five times and runs a t-test over the five seeds, which measures the annotator's consistency.
Here the unit is the concept: each base concept is paired with its matched tuned concept, and an exact McNemar
test asks whether as many pairs gained a class as lost it. Concepts of one layer are not independent, so the
interval resamples whole layers, and a companion test flips the sign of whole layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Integer
from scipy import stats

from shiftlens.analyses.concepts.keywords import keyword_ranks
from shiftlens.annotate.annotation import LEVELS, TASKS, Annotation
from shiftlens.models.roles import ROLES
from shiftlens.results.finding import Finding, Group
from shiftlens.stats.multiple_testing import holm
from shiftlens.stats.two_groups import RESAMPLES
from shiftlens.weights.depth import depth_parts

INTERPRETABLE = "interpretable"
_MEASURES = {
    INTERPRETABLE: "share of concepts that can be described",
    "level": "share of concepts about {}",
    "task": "share of concepts that serve {}",
}
_QUESTIONS = {
    INTERPRETABLE: "Did tuning change how many concepts can be described?",
    "level": "Did tuning change how many concepts are about {}?",
    "task": "Did tuning change how many concepts serve {}?",
}


@dataclass(frozen=True)
class ConceptEvidence:
    """Tests and tables of the annotations of base and tuned concepts.

    Args:
        findings: One per class, named ``concepts/interpretable``, ``concepts/level/syntax``,
            ``concepts/task/coding`` and so on, with p corrected over all of them.
        kinds: Kind of each finding's class: ``interpretable``, ``level`` or ``task``.
        interpretability: ``role, layer, described, n, share``.
        shares: ``kind, class, layers, base, tuned, difference, n, gained, lost``: shares of matched concepts, by
            quarter of the depth (``1`` is next to the input) and for ``all`` layers; ``kind`` is
            ``interpretable``, ``level`` or ``task``. ``gained`` and ``lost`` count pairs that changed.
        keywords: Words of descriptions, see :func:`~shiftlens.analyses.concepts.keywords.keyword_ranks`.
    """

    findings: Sequence[Finding]
    kinds: Sequence[str]
    interpretability: pd.DataFrame
    shares: pd.DataFrame
    keywords: pd.DataFrame


@dataclass(frozen=True)
class _Class:
    """Whether the base and the tuned concept of each matched pair belong to a class."""

    kind: str
    name: str
    base: Bool[np.ndarray, " pairs"]
    tuned: Bool[np.ndarray, " pairs"]


def concept_evidence(
    base: Sequence[Sequence[Annotation]],
    tuned: Sequence[Sequence[Annotation]],
    matches: Sequence[Integer[np.ndarray, _]],
    seed: int = 0,
) -> ConceptEvidence:
    """Compare annotations of base and tuned concepts, matched one to one in each layer.

    A concept without a description belongs to no level and no task, so a class may grow only because more concepts
    can be described. The finding ``concepts/interpretable`` shows whether that is so.

    Args:
        base: Annotations of the base model's concepts, by layer and concept.
        tuned: Annotations of the tuned model's concepts, by layer and concept.
        matches: By layer, the index of the tuned concept matched to each base concept.
        seed: Random seed for the bootstrap and the sign flips.

    Returns:
        One finding per class, and the tables behind the findings.

    Raises:
        ValueError: The numbers of layers differ, or the matches of a layer are not one to one.

    Example:
        >>> syntax, none = Annotation("verbs", "syntax", "none"), Annotation(None, None, None)
        >>> evidence = concept_evidence([[none] * 8], [[syntax] * 7 + [none]], [np.arange(8)])
        >>> evidence.findings[0].name, evidence.findings[0].p, evidence.findings[0].effect
        ('concepts/interpretable', 0.015625, 0.875)
        >>> next(f.why_not for f in evidence.findings if f.name == "concepts/task/coding")
        'no matched concept gained or lost it'
    """
    _check(base, tuned, matches)
    before = [annotation for layer in base for annotation in layer]
    after = [layer[i] for layer, match in zip(tuned, matches, strict=True) for i in match.tolist()]
    layer = np.repeat(np.arange(len(base)), [len(annotations) for annotations in base])
    classes = [
        _class(INTERPRETABLE, INTERPRETABLE, [a.told for a in before], [a.told for a in after]),
        *(_class("level", n, [a.level == n for a in before], [a.level == n for a in after]) for n in LEVELS),
        # The last task, "none", is the absence of a task and no class of its own.
        *(_class("task", n, [a.task == n for a in before], [a.task == n for a in after]) for n in TASKS[:-1]),
    ]
    findings = [_finding(c, layer, seed) for c in classes]
    return ConceptEvidence(
        findings=holm(findings, "classes of concepts"),
        kinds=[c.kind for c in classes],
        interpretability=_interpretability({"base": base, "tuned": tuned}),
        shares=pd.DataFrame([row for c in classes for row in _shares(c, layer, len(base))]),
        keywords=keyword_ranks(_descriptions(base), _descriptions(tuned)),
    )


def mcnemar(base: Bool[np.ndarray, " pairs"], tuned: Bool[np.ndarray, " pairs"]) -> float | None:
    """Test exactly and two-sided whether as many pairs gained a class as lost it (McNemar test).

    Args:
        base: [pairs] whether the base concept belongs to the class.
        tuned: [pairs] whether the tuned concept belongs to the class.

    Returns:
        p-value, or ``None`` if no pair changed. Source: McNemar 1947, with binomial probabilities.

    Example:
        >>> mcnemar(np.array([False] * 5 + [True]), np.array([True] * 6))
        0.0625
    """
    gained, lost = int((~base & tuned).sum()), int((base & ~tuned).sum())
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else None


def layer_bootstrap(
    change: Float[np.ndarray, " pairs"], layer: Integer[np.ndarray, " pairs"], seed: int
) -> tuple[float, float] | None:
    """Compute the 95 % bootstrap interval of the mean change, with whole layers resampled.

    Args:
        change: [pairs] -1, 0 or 1.
        layer: [pairs] layer of each pair.
        seed: Random seed for the resampling.

    Returns:
        The 2.5 and 97.5 percentiles, or ``None`` with fewer than two layers.

    Example:
        >>> layer_bootstrap(np.array([0.0, 1.0]), np.array([0, 1]), 0)
        (0.0, 1.0)
    """
    _, index = np.unique(layer, return_inverse=True)
    size, total = np.bincount(index), np.bincount(index, weights=change)
    if len(size) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(size), size=(RESAMPLES, len(size)))
    low, high = np.percentile(total[drawn].sum(1) / size[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)


def _descriptions(layers: Sequence[Sequence[Annotation]]) -> list[str]:
    return [a.description for annotations in layers for a in annotations if a.description]


def _class(kind: str, name: str, base: Sequence[bool], tuned: Sequence[bool]) -> _Class:
    return _Class(kind, name, np.array(base, bool), np.array(tuned, bool))


def _finding(c: _Class, layer: Integer[np.ndarray, " pairs"], seed: int) -> Finding:
    p = mcnemar(c.base, c.tuned)
    change = c.tuned.astype(float) - c.base
    others = {}
    if p is not None:
        by_layer = np.bincount(layer, weights=change)
        if len(by_layer) > 1:
            flips = stats.permutation_test(
                (by_layer,), np.sum, permutation_type="samples", vectorized=True, rng=np.random.default_rng(seed)
            )
            others["sign flips of whole layers, two-sided"] = float(flips.pvalue)
    why_not = "no matched concept gained or lost it" if len(change) else "there are no concepts"
    return Finding(
        name=f"concepts/{c.name}" if c.kind == c.name else f"concepts/{c.kind}/{c.name}",
        view="concepts",
        data="feed-forward layers",
        role="both",
        question=_QUESTIONS[c.kind].format(c.name),
        null="of the matched concepts that changed, as many gained the class as lost it",
        test="exact McNemar, two-sided",
        n=len(change),
        groups=dict(zip(ROLES, (_group(c.base), _group(c.tuned)), strict=True)),
        effect=float(change.mean()) if p is not None else None,
        effect_name="difference in share",
        ci=layer_bootstrap(change, layer, seed) if p is not None else None,
        p=p,
        p_others=others,
        why_not="" if p is not None else why_not,
        measure=_MEASURES[c.kind].format(c.name),
        unit="%",
        headline=c.kind == INTERPRETABLE,
    )


def _group(has: Bool[np.ndarray, " pairs"]) -> Group:
    return Group(float(has.mean()), float(has.std()), len(has)) if len(has) else Group(0.0, 0.0, 0)


def _shares(c: _Class, layer: Integer[np.ndarray, " pairs"], layers: int) -> list[dict[str, object]]:
    parts = depth_parts(layer.tolist(), layers)
    rows: list[dict[str, object]] = []
    for name, in_part in parts.items():
        base, tuned = c.base[in_part], c.tuned[in_part]
        if len(base):  # a model of fewer than four layers has empty quarters
            row = {"kind": c.kind, "class": c.name, "layers": name, "base": base.mean(), "tuned": tuned.mean()}
            row |= {"difference": tuned.mean() - base.mean(), "n": len(base)}
            rows.append(row | {"gained": int((~base & tuned).sum()), "lost": int((base & ~tuned).sum())})
    return rows


def _interpretability(roles: dict[str, Sequence[Sequence[Annotation]]]) -> pd.DataFrame:
    rows = [
        (role, layer, sum(a.told for a in annotations), len(annotations))
        for role, layers in roles.items()
        for layer, annotations in enumerate(layers)
    ]
    table = pd.DataFrame(rows, columns=["role", "layer", "described", "n"])
    return table.assign(share=(table["described"] / table["n"]).where(table["n"] > 0))


def _check(
    base: Sequence[Sequence[Annotation]],
    tuned: Sequence[Sequence[Annotation]],
    matches: Sequence[Integer[np.ndarray, _]],
) -> None:
    if not len(base) == len(tuned) == len(matches):
        raise ValueError(f"base, tuned and matches have {len(base)}, {len(tuned)} and {len(matches)} layers")
    for layer, (before, after, match) in enumerate(zip(base, tuned, matches, strict=True)):
        in_range = all(0 <= i < len(after) for i in match.tolist())
        if len(match) != len(before) or not in_range or len(set(match.tolist())) != len(match):
            raise ValueError(
                f"layer {layer}: expected for each of {len(before)} base concepts its own one of {len(after)} "
                f"tuned concepts, got {match.tolist()[:10]}"
            )
