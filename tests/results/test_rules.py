"""The rules of evidence by version: a change of a rule or a control fails here until the version is raised.

An entry of :data:`RULES` is never changed once results have been published under its version. A new rule is a new
entry, a higher ``EVIDENCE_VERSION``, and a line in the changelog of ``docs/evidence.md``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.planted import HEADLINE, planted

from shiftlens.analyses.density import specificity
from shiftlens.analyses.density.controls import run_controls
from shiftlens.analyses.density.grid import all_settings
from shiftlens.analyses.density.questions import followed_question, tuning_question
from shiftlens.results.finding import ALPHA, Control, Finding, rejected
from shiftlens.results.verdict import EVIDENCE_VERSION, judge
from shiftlens.scores.densities import densities
from shiftlens.scores.following import MIN_RESPONSE_TOKENS
from shiftlens.stats.permutation import PERMUTATIONS

pytestmark = pytest.mark.quick

DOCUMENT = Path(__file__).parents[2] / "docs" / "evidence.md"
RULES: dict[int, dict[str, Any]] = {
    1: {
        "level": 0.05,
        "controls": {
            "random mask": "specific",
            "non-instruction tokens": "specific",
            "context tokens": "",
            "no division by max": "",
            "mean": "",
            "share": "",
            "equal response length": "",
            "lengths as covariates": "",
        },
        "random masks": 100,
        "least other tokens": 3,
        "least prompts in a group": 10,
        "least response tokens": 5,
        "relabellings": 5000,
        "settings": {(L, b, p) for L in (5, 10, 20) for b in range(L) for p in (2, 3, 4, 5, 6)},
        # p, corrected p, effect, one-sided, survival of (a specific rival, another rival) -> verdict
        "verdicts": {
            (None, None, None, True, ()): "not testable",
            (0.05, None, 0.4, True, ()): "supported",
            (0.051, None, 0.4, True, ()): "not supported",
            (0.02, 0.05, 0.4, True, ()): "supported",
            (0.02, 0.31, 0.4, True, ()): "not supported",
            (0.02, None, -0.4, True, ()): "not supported",
            (0.02, None, 0.0, True, ()): "not supported",
            (0.02, None, -0.4, False, ()): "supported",
            (0.02, None, 0.4, True, (True, True)): "supported",
            (0.02, None, 0.4, True, (True, None)): "supported",
            (0.02, None, 0.4, True, (True, False)): "supported but not specific",
            (0.02, None, 0.4, True, (False, True)): "supported but not specific",
            (0.02, None, 0.4, True, (None, True)): "supported but not specific",
            (0.02, None, 0.4, True, (None, None)): "supported but not specific",
            (0.02, 0.31, 0.4, True, (True, True)): "not supported",
        },
    },
}
RULES[2] = {
    **RULES[1],
    # Survival of (a specific rival, another rival), then of exact removal -> verdict of a finding of the gradient
    # that stands; False where removal does not confirm it, None where it was not computed.
    "removal": {
        ((True, True), True): "supported",
        ((True, False), True): "supported but not specific",
        ((True, True), False): "gradient only",
        ((True, True), None): "gradient only",
        ((False, True), False): "gradient only",
        ((False, False), None): "gradient only",
    },
}
NOW = RULES[EVIDENCE_VERSION]


def test_the_version_is_the_latest_of_the_rules() -> None:
    assert EVIDENCE_VERSION == max(RULES) == len(RULES)


@pytest.mark.parametrize("ask", [followed_question, tuning_question])
def test_the_controls_are_those_of_the_version(ask) -> None:
    records = planted(40, gain=0.4)
    controls = run_controls(ask(records), densities(records, HEADLINE))
    assert {c.name: "specific" if c.specific else "" for c in controls} == NOW["controls"]
    assert [c.name for c in controls] == list(NOW["controls"])
    # Whether a control is about instruction words does not depend on whether it could be tested.
    few = planted(4)
    untested = run_controls(ask(few), densities(few, HEADLINE))
    assert {c.name: "specific" if c.specific else "" for c in untested} == NOW["controls"]
    for control in controls:
        assert control.survives == (control.p <= NOW["level"])


def test_the_numbers_are_those_of_the_version() -> None:
    assert NOW["level"] == ALPHA
    assert NOW["random masks"] == specificity.DRAWS
    assert NOW["least other tokens"] == specificity.MIN_OTHER_TOKENS
    assert NOW["least prompts in a group"] == specificity.MIN_PROMPTS
    assert NOW["least response tokens"] == MIN_RESPONSE_TOKENS
    assert NOW["relabellings"] == PERMUTATIONS
    assert {(s.L, s.b, s.p) for s in all_settings()} == NOW["settings"]
    assert len(NOW["settings"]) == 175


@pytest.mark.parametrize(("numbers", "verdict"), NOW["verdicts"].items())
def test_the_verdicts_are_those_of_the_version(numbers, verdict) -> None:
    p, corrected, effect, one_sided, survival = numbers
    rivals = [
        Control(f"rival {i}", "?", 1.0, 0.1, 0.1, survives, specific=i == 0) for i, survives in enumerate(survival)
    ]
    found = Finding("x/y", "x", "d", "both", "?", "0", "t", 9, {}, effect, "g", None, p, p_corrected=corrected,
                    expected="tuned" if one_sided else None)  # fmt: skip
    assert judge(found, rivals).verdict == verdict
    decisive = p if corrected is None else corrected
    assert rejected(decisive, effect, one_sided) == verdict.startswith("supported")


@pytest.mark.parametrize(("survival", "verdict"), NOW["removal"].items())
@pytest.mark.parametrize("stands", [True, False])
def test_removal_decides_first_among_the_rivals(survival, verdict, stands) -> None:
    (specific, other), removal = survival
    rivals = [
        Control("a", "?", 1.0, 0.1, 0.1, specific, specific=True),
        Control("b", "?", 1.0, 0.1, 0.1, other),
        Control("exact removal", "?", None, None, None, removal, removal=True),
    ]
    found = Finding("x/y", "x", "d", "both", "?", "0", "t", 9, {}, 0.4, "g", None, 0.02 if stands else 0.06,
                    expected="tuned", method="gradient")  # fmt: skip
    assert judge(found, rivals).verdict == (verdict if stands else "not supported")


def test_the_document_has_every_version_and_every_control() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    changelog = text.split("## Changelog of the rules\n")[1].split("\n## ")[0]
    assert [int(number) for number in re.findall(r"^\| (\d+) ", changelog, re.M)] == sorted(RULES, reverse=True)
    table = text.split("## Controls")[1].split("\n## ")[0]
    assert re.findall(r"^\| ([a-z -]+) \|", table, re.M)[1:] == [*NOW["controls"], "exact removal"]
