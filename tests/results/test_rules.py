"""Controls, thresholds and verdicts of each version of the rules, written out: who changes one raises the version."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from shiftlens.analyses.density.controls import CONTROLS
from shiftlens.analyses.density.specificity import DRAWS, MIN_OTHER_TOKENS, MIN_PROMPTS
from shiftlens.results.finding import ALPHA, Control, Finding
from shiftlens.results.verdict import EVIDENCE_VERSION, judge
from shiftlens.scores.following import MIN_RESPONSE_TOKENS
from shiftlens.stats.permutation import PERMUTATIONS

pytestmark = pytest.mark.quick

RULES = {
    1: (
        "random_mask other_tokens context_tokens no_division mean share equal_length covariates",
        {
            "alpha": 0.05,
            "random masks": 100,
            "other tokens": 3,
            "prompts": 10,
            "response": 5,
            "relabellings": 5000,
        },
    )
}
"""Version -> names of the controls, and the thresholds. Released versions stay as they are."""

FOUND = Finding("x/y", "x", "d", "both", "?", "0", "t", 9, {}, 0.5, "Hedges g", None, 0.01)
GENERAL = Control("length", "?", 1.0, 2.0, 0.01, survives=True)
SPECIFIC = replace(GENERAL, name="random mask", specific=True)


def test_a_change_of_controls_or_thresholds_needs_a_new_version() -> None:
    thresholds = {
        "alpha": ALPHA,
        "random masks": DRAWS,
        "other tokens": MIN_OTHER_TOKENS,
        "prompts": MIN_PROMPTS,
        "response": MIN_RESPONSE_TOKENS,
        "relabellings": PERMUTATIONS,
    }
    now = (" ".join(control.__name__ for control in CONTROLS), thresholds)
    assert now == RULES[EVIDENCE_VERSION], (
        "the rules differ from those of this version: raise EVIDENCE_VERSION, add the new rules to RULES, and a line "
        "to the changes in docs/evidence.md"
    )


def test_every_version_is_in_the_changes_of_the_rules() -> None:
    text = (Path(__file__).parents[2] / "docs/evidence.md").read_text(encoding="utf-8")
    changes = text.split("## Changes of the rules")[1].split("\n## ")[0]
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", changes, re.M)] == sorted(RULES)
    assert max(RULES) == EVIDENCE_VERSION


@pytest.mark.parametrize(
    ("change", "controls", "verdict"),
    [
        ({}, (), "supported"),
        ({"p": 0.05}, (), "supported"),
        ({"p": 0.0501}, (), "not supported"),
        ({"p": 0.05, "p_corrected": 0.05}, (), "supported"),
        ({"p": 0.02, "p_corrected": 0.31}, (), "not supported"),
        ({"p": 0.6, "p_corrected": 0.01}, (), "supported"),
        ({"p": None}, (GENERAL, SPECIFIC), "not testable"),
        ({}, (GENERAL, SPECIFIC), "supported"),
        ({}, (GENERAL,), "supported but not specific"),
        ({}, (GENERAL, replace(SPECIFIC, survives=None)), "supported but not specific"),
        ({}, (replace(GENERAL, survives=None), SPECIFIC), "supported"),
        ({}, (replace(GENERAL, survives=False), SPECIFIC), "supported but not specific"),
        ({"p": 0.2}, (GENERAL, SPECIFIC), "not supported"),
    ],
)
def test_verdicts(change: dict[str, float | None], controls: tuple[Control, ...], verdict: str) -> None:
    assert judge(replace(FOUND, **change), controls).verdict == verdict


def test_one_rule_serves_stands_and_verdict() -> None:
    levels = (None, 0.0, 0.049, 0.05, 0.051, 1.0)
    for p, corrected in product(levels, levels):
        if p is None and corrected is not None:
            continue
        finding = judge(replace(FOUND, p=p, p_corrected=corrected))
        decisive = p if corrected is None else corrected
        assert finding.stands == (decisive is not None and decisive <= 0.05)
        assert (finding.verdict == "supported") == finding.stands
