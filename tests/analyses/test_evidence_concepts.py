"""Annotated concepts of base and tuned: tests, intervals and tables against plain re-statements."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from math import comb
from typing import Any

import numpy as np
import pytest

from shiftlens.analyses.concepts.findings import ConceptEvidence, concept_evidence, layer_bootstrap, mcnemar
from shiftlens.analyses.concepts.keywords import keyword_ranks
from shiftlens.annotate import LEVELS, TASKS, Annotation

pytestmark = pytest.mark.quick

NONE = Annotation(None, None, None)


def annotated(rng: np.random.Generator, layers: int, k: int, told: float, coding: float) -> list[list[Annotation]]:
    def one() -> Annotation:
        if rng.random() > told:
            return NONE
        task = "coding" if rng.random() < coding else str(rng.choice(TASKS))
        level = str(rng.choice(LEVELS))
        return Annotation(f"{level} of {task} {rng.choice(['towns', 'verbs'])}", level, task)

    return [[one() for _ in range(k)] for _ in range(layers)]


@pytest.fixture(scope="module")
def shifted() -> tuple[Any, Any, Any, ConceptEvidence]:
    """Ten layers of 40 concepts; the tuned model has more coding concepts and describes fewer."""
    rng = np.random.default_rng(0)
    base = annotated(rng, 10, 40, told=0.9, coding=0.05)
    tuned = annotated(rng, 10, 40, told=0.8, coding=0.35)
    matches = [rng.permutation(40) for _ in range(10)]
    return base, tuned, matches, concept_evidence(base, tuned, matches)


def pairs(base: Any, tuned: Any, matches: Any) -> list[tuple[int, Annotation, Annotation]]:
    return [
        (layer, base[layer][i], tuned[layer][int(matches[layer][i])])
        for layer in range(len(base))
        for i in range(len(base[layer]))
    ]


def has(annotation: Annotation, kind: str, name: str) -> bool:
    if kind == "interpretable":
        return annotation.description is not None
    return (annotation.level if kind == "level" else annotation.task) == name


CLASSES = [
    ("interpretable", "interpretable"),
    *(("level", name) for name in ("phonology", "morphology", "syntax", "semantics")),
    *(("task", name) for name in ("writing", "math", "coding", "translation")),
]


def test_mcnemar_is_the_two_sided_sign_test_of_the_changed_pairs(shifted: Any) -> None:
    base, tuned, matches, found = shifted
    for finding, (kind, name) in zip(found.findings, CLASSES, strict=True):
        assert finding.name == ("concepts/interpretable" if kind == name else f"concepts/{kind}/{name}")
        before = [has(b, kind, name) for _, b, _ in pairs(base, tuned, matches)]
        after = [has(t, kind, name) for _, _, t in pairs(base, tuned, matches)]
        gained = sum(t and not b for b, t in zip(before, after, strict=True))
        lost = sum(b and not t for b, t in zip(before, after, strict=True))
        n = gained + lost
        p = min(1.0, 2 * sum(comb(n, j) for j in range(min(gained, lost) + 1)) / 2**n)
        assert finding.p == pytest.approx(p)
        assert finding.effect == pytest.approx((gained - lost) / 400)
        assert (finding.n, finding.view) == (400, "concepts")
        assert finding.groups["base"].mean == pytest.approx(sum(before) / 400)
        assert finding.groups["tuned"].mean == pytest.approx(sum(after) / 400)


def test_holm_over_every_class_tested(shifted: Any) -> None:
    p = [finding.p for finding in shifted[3].findings]
    order = sorted(range(len(p)), key=lambda i: p[i])
    stepped, largest = {}, 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, p[i] * (len(p) - rank)))
        stepped[i] = largest
    assert [finding.p_corrected for finding in shifted[3].findings] == pytest.approx(
        [stepped[i] for i in range(9)]
    )


def test_a_planted_shift_is_found_and_little_else(shifted: Any) -> None:
    by_name = {finding.name: finding for finding in shifted[3].findings}
    coding, told = by_name["concepts/task/coding"], by_name["concepts/interpretable"]
    assert coding.p_corrected < 1e-6 and coding.ci[0] > 0.1
    assert told.p_corrected < 0.05 and told.ci[1] < 0
    assert coding.p_others["sign flips of whole layers, two-sided"] < 0.01


def test_whole_layers_are_resampled() -> None:
    rng = np.random.default_rng(1)
    layer = np.repeat(np.arange(6), [5, 9, 3, 7, 8, 4])
    change = rng.choice([-1.0, 0.0, 1.0], len(layer)) + (layer == 2)
    low, high = layer_bootstrap(change, layer, seed=0)
    by_layer = [change[layer == i].tolist() for i in range(6)]
    generator, means = random.Random(0), []
    for _ in range(5000):
        drawn = list(itertools.chain.from_iterable(generator.choices(by_layer, k=6)))
        means.append(sum(drawn) / len(drawn))
    assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.03)
    # Where all change lies between layers, resampling concepts would be far too sure.
    change = np.repeat([1.0, 0.0, 0.0, 0.0, 0.0, -1.0], 100)
    low, high = layer_bootstrap(change, np.repeat(np.arange(6), 100), seed=0)
    assert high - low > 5 * (2 * 1.96 * change.std() / np.sqrt(600))


def test_sign_flips_of_layers_against_all_of_them(shifted: Any) -> None:
    base, tuned, matches, found = shifted
    finding = next(f for f in found.findings if f.name == "concepts/level/syntax")
    sums = [0.0] * 10
    for layer, b, t in pairs(base, tuned, matches):
        sums[layer] += has(t, "level", "syntax") - has(b, "level", "syntax")
    flipped = [
        sum(s * x for s, x in zip(signs, sums, strict=True)) for signs in itertools.product((1, -1), repeat=10)
    ]
    observed = sum(sums)
    tails = [sum(f >= observed for f in flipped), sum(f <= observed for f in flipped)]
    expected = min(1.0, 2 * min(tails) / len(flipped))
    assert finding.p_others["sign flips of whole layers, two-sided"] == pytest.approx(expected)


def test_shares_by_quarter_of_the_depth(shifted: Any) -> None:
    base, tuned, matches, found = shifted
    table = found.shares.set_index(["kind", "class", "layers"])
    assert len(table) == len(CLASSES) * 5
    # Ten layers: floor(4 l / 10) puts 0-2, 3-4, 5-7 and 8-9 together.
    groups = {"1": (0, 1, 2), "2": (3, 4), "3": (5, 6, 7), "4": (8, 9), "all": range(10)}
    for (kind, name), (quarter, layers) in itertools.product(CLASSES, groups.items()):
        rows = [(has(b, kind, name), has(t, kind, name)) for i, b, t in pairs(base, tuned, matches) if i in layers]
        row = table.loc[(kind, name, quarter)]
        assert row["n"] == len(rows)
        assert row["base"] == pytest.approx(sum(b for b, _ in rows) / len(rows))
        assert row["tuned"] == pytest.approx(sum(t for _, t in rows) / len(rows))
        assert row["difference"] == pytest.approx(row["tuned"] - row["base"])
        assert (row["gained"], row["lost"]) == (sum(t > b for b, t in rows), sum(b > t for b, t in rows))


def test_interpretability_by_layer(shifted: Any) -> None:
    base, tuned, _, found = shifted
    table = found.interpretability.set_index(["role", "layer"])
    for role, layers in (("base", base), ("tuned", tuned)):
        for layer in range(10):
            described = sum(a.description is not None for a in layers[layer])
            assert table.loc[(role, layer), ["described", "n", "share"]].tolist() == [
                described,
                40,
                described / 40,
            ]


def test_keywords_are_ranked_by_how_many_concepts_they_describe() -> None:
    base = ["Verbs of motion", "verbs, VERBS and verbs", "names of towns", "words near: towns, rivers"]
    tuned = ["code", "code for towns", "it's the code's syntax"]
    table = keyword_ranks(base, tuned).set_index("keyword")
    counts = Counter({"verbs": 2, "towns": 2, "motion": 1, "names": 1, "rivers": 1})
    after = Counter({"code": 3, "towns": 1, "syntax": 1})
    words = set(counts) | set(after)
    assert set(table.index) == words
    for word in words:
        for column, count in (("base", counts), ("tuned", after)):
            larger = sum(count[other] > count[word] for other in words)
            equal = sum(count[other] == count[word] for other in words)
            assert table.loc[word, f"{column}_count"] == count[word]
            assert table.loc[word, f"{column}_rank"] == larger + (equal + 1) / 2
    assert (table["rise"] == table["base_rank"] - table["tuned_rank"]).all()
    assert table.index[0] == "code" and table.index[-1] == "verbs"
    assert keyword_ranks([], []).empty


def test_what_cannot_be_tested_says_so_and_holds_no_nan() -> None:
    verbs = Annotation("verbs", "syntax", "none")
    same = concept_evidence([[verbs, NONE]] * 3, [[verbs, NONE]] * 3, [np.arange(2)] * 3)
    assert all(f.p is None and f.p_corrected is None and f.ci is None and f.effect is None for f in same.findings)
    assert all(f.why_not == "no matched concept gained or lost it" and not f.note for f in same.findings)
    empty = concept_evidence([], [], [])
    assert {f.why_not for f in empty.findings} == {"there are no concepts"}
    assert empty.shares.empty and empty.interpretability.empty and empty.keywords.empty
    one = concept_evidence([[NONE] * 6], [[verbs] * 6], [np.arange(6)])
    told = one.findings[0]
    assert told.p == pytest.approx(2 / 2**6) and told.ci is None and told.p_others == {}
    assert not one.shares[["base", "tuned", "difference"]].isna().any().any()
    assert [f.to_dict()["p"] for f in one.findings if f.testable] == [2 / 2**6] * 2


def test_only_tested_classes_are_corrected_for() -> None:
    verbs = Annotation("verbs", "syntax", "none")
    found = concept_evidence([[NONE] * 8], [[verbs] * 8], [np.arange(8)]).findings
    tested = {f.name: f.p_corrected for f in found if f.testable}
    assert tested == pytest.approx({"concepts/interpretable": 4 / 2**8, "concepts/level/syntax": 4 / 2**8})


def test_mcnemar_under_the_null_keeps_its_level() -> None:
    rng = np.random.default_rng(3)
    p = [mcnemar(rng.random(200) < 0.3, rng.random(200) < 0.3) for _ in range(1000)]
    assert 0.02 < np.mean([value < 0.05 for value in p if value is not None]) < 0.06


@pytest.mark.parametrize(
    ("tuned", "match", "said"),
    [
        ([[NONE] * 2], [np.array([0, 0])], "layer 0: expected for each of 2 base concepts its own"),
        ([[NONE] * 2], [np.array([0, 2])], "layer 0"),
        ([[NONE] * 2], [np.array([0])], "layer 0"),
        ([[NONE] * 2], [], "1, 1 and 0 layers"),
    ],
)
def test_matches_must_be_one_to_one(tuned: Any, match: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        concept_evidence([[NONE] * 2], tuned, match)
