"""Corrected findings and verdicts: against the tests themselves, Holm by hand, and the published scores."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from helpers.planted import HEADLINE, SMALL, planted
from helpers.reference import FOLDER, needs_reference

from shiftlens.analyses.density.compute import POOLED, examine
from shiftlens.analyses.density.grid import all_settings
from shiftlens.analyses.density.t1_t2 import base_vs_tuned, followed_vs_unfollowed
from shiftlens.analyses.imported.published import published_table, read_published
from shiftlens.errors import SourceError
from shiftlens.results.finding import Control, Finding
from shiftlens.results.verdict import judge
from shiftlens.scores.settings import Settings


def test_examined_findings_are_those_of_the_tests_and_strict_json():
    records = planted(40, gain=0.4) + planted(30, seed=1, gain=0.4, data="e")
    found = examine(records, HEADLINE, SMALL, permutations=200)
    assert len(found.findings) == 3 * 3
    assert len(found.sensitivity) == 9 * len(SMALL)
    table = found.grid.samples(HEADLINE)
    for finding in found.findings:
        json.dumps(finding.to_dict(), allow_nan=False)
        if finding.data == POOLED:
            continue
        part = table[table["dataset"] == finding.data]
        want = base_vs_tuned(part) if "base" in finding.groups else followed_vs_unfollowed(part, finding.role)
        assert (finding.p, finding.effect, finding.n, finding.ci) == (want.p, want.effect, want.n, want.ci)
    pooled = {f.name: f for f in found.findings if f.data == POOLED}
    assert pooled["density/base_vs_tuned"].n == 70
    unjudged = pooled["density/followed_vs_unfollowed_in_base"]
    assert (unjudged.verdict, unjudged.p_corrected, unjudged.controls) == ("not testable", None, ())


def test_corrections_are_max_t_then_holm_over_data_sets():
    records = planted(24, gain=0.08) + planted(24, seed=1, gain=0.1, data="e")
    found = examine(records, HEADLINE, SMALL, permutations=400)
    here = found.sensitivity.query("name == 'density/base_vs_tuned' and L == 10 and b == 3 and p == 4")
    max_t = dict(zip(here["data"], here["p_corrected"], strict=True))
    low, high = sorted([max_t["d"], max_t["e"]])
    want = {low: min(1, 2 * low), high: min(1, max(2 * low, high))}
    got = {f.data: f.p_corrected for f in found.findings if f.name == "density/base_vs_tuned"}
    assert got == pytest.approx({"d": want[max_t["d"]], "e": want[max_t["e"]], POOLED: max_t[POOLED]})


def test_the_headline_joins_the_grid_and_the_same_seed_gives_the_same_numbers():
    records = planted(20, gain=0.4)
    first, again = (examine(records, Settings(16, 3, 5), SMALL, permutations=50, seed=3) for _ in range(2))
    assert len(first.grid.settings) == len(SMALL) + 1
    assert first.findings == again.findings


def test_one_data_set_is_not_pooled_and_few_samples_are_not_testable():
    found = examine(planted(1), HEADLINE, SMALL, permutations=20)
    assert [f.verdict for f in found.findings] == ["not testable"] * 3
    assert found.sensitivity[["statistic", "p_permutation", "p_corrected"]].isna().all(axis=None)


SPECIFIC = ("random_mask", "non_instruction_tokens")


def judged(p=0.001, corrected=0.01, effect=0.5, **survives):
    controls = tuple(
        Control(name.replace("_", " "), "?", 1.0, 0.5, 0.1, s, specific=name in SPECIFIC)
        for name, s in survives.items()
    )
    finding = Finding("x/y", "x", "d", "both", "?", "0", "t", 9, {}, effect, "g", None, p,
                      p_corrected=corrected, expected="tuned")  # fmt: skip
    found = judge(finding, controls)
    assert found.controls == controls
    return found.verdict


def test_verdicts():
    assert judged(p=None, corrected=None, random_mask=True) == "not testable"
    assert judged(corrected=0.051, random_mask=True) == "not supported"
    assert judged(corrected=0.05, random_mask=True) == "supported"
    assert judged(p=0.051, corrected=None, random_mask=True) == "not supported"
    assert judged(effect=-0.1, random_mask=True) == "not supported"
    assert judged(random_mask=True, mean=True, share=None) == "supported"
    assert judged(non_instruction_tokens=True, mean=True) == "supported"
    assert judged(random_mask=True, mean=False) == "supported but not specific"
    assert judged(random_mask=False) == "supported but not specific"
    assert judged(random_mask=None, mean=True) == "supported but not specific"
    assert judged(mean=True) == "supported but not specific"


def test_verdicts_without_rivals():
    blank = Finding("x/y", "x", "d", "both", "?", "0", "t", 9, {}, -0.5, "g", None, 0.04)
    words = [judge(replace(blank, p_corrected=p)).verdict for p in (None, 0.05, 0.051)]
    assert words == ["supported", "supported", "not supported"]
    assert judge(replace(blank, p=0.06)).verdict == "not supported"
    assert judge(replace(blank, p=None)).verdict == "not testable"
    # A one-sided test asks about one side, so an effect on the other is not supported whatever its p.
    assert judge(replace(blank, expected="tuned")).verdict == "not supported"


# Published scores


@pytest.fixture(scope="module")
def published_examination():
    return examine(read_published(FOLDER), Settings(10, 7, 4), all_settings(Ls=[10]), permutations=2000)


def by_data(examination, name):
    return {f.data: f for f in examination.findings if f.name == name}


@needs_reference
def test_published_effects_stand_the_correction_and_the_search_is_not_free(published_examination):
    t1 = by_data(published_examination, "density/followed_vs_unfollowed")
    t2 = by_data(published_examination, "density/base_vs_tuned")
    for data in ("self_instruct", "lima"):
        assert t1[data].p_others["max-T permutation over 50 settings"] <= 0.005
        assert t2[data].p_corrected <= 0.005
        share = int(t1[data].note.split("p < 0.05 in ")[1].split("%")[0])
        assert 13 <= share <= 22  # 15-20 % in the review, give or take the draw
    assert (f"{t1['self_instruct'].p:.2e}", f"{t1['lima'].p:.2e}") == ("4.57e-05", "2.59e-05")
    assert (f"{t2['self_instruct'].p:.1e}", f"{t2['lima'].p:.1e}") == ("3.2e-06", "2.9e-21")


@needs_reference
def test_published_controls(published_examination):
    t1 = by_data(published_examination, "density/followed_vs_unfollowed")
    controls = {data: {c.name: c for c in t1[data].controls} for data in ("self_instruct", "lima")}
    for data, median, observed in (("self_instruct", 4.5, 4.6), ("lima", 2.7, 4.0)):
        row = controls[data]["random mask"]
        assert row.statistic == pytest.approx(median, abs=0.15)
        assert f"instruction's t = {observed}" in row.note
        assert controls[data]["no division by max"].p == pytest.approx(0.12, abs=0.02)
        assert not controls[data]["no division by max"].survives
    t2 = by_data(published_examination, "density/base_vs_tuned")["self_instruct"]
    context = next(c for c in t2.controls if c.name == "context tokens")
    assert context.statistic < 0  # the context gained, the instruction did not
    assert not context.survives


@needs_reference
def test_the_published_table_has_the_published_figures(published_examination):
    text = published_table(published_examination.findings)
    for figure in ("| 194 / 44 | 0.9739 ± 0.4377 | 1.2911 ± 0.5216 |", "| 249 / 50 | 1.0937 ± 0.4566 | 1.4045 ± 0.4896 |",
                   "| 252 | 1.0043 ± 0.4965 | 1.1939 ± 0.5358 |", "| 300 | 1.0666 ± 0.4468 | 1.3503 ± 0.4986 |",
                   "4.57e-05", "2.59e-05", "2.28e-05 | 3.2e-06", "3.88e-13 | 2.9e-21"):  # fmt: skip
        assert figure in text
    tables = [block.splitlines() for block in text.split("\n\n")[:2]]
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1


def test_a_folder_without_the_scores_says_what_is_missing(tmp_path):
    with pytest.raises(SourceError, match=r"no llama_7b.parquet and no vicuna_7b.parquet"):
        read_published(tmp_path)
