"""The numbers of tuning curves and of before against after, each restated plainly."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from shiftlens.analyses.training.curves import Point, checker, curves_table, follow_points, logged, pair_points
from shiftlens.analyses.training.findings import (
    density_findings,
    follow_finding,
    probes_table,
    trend_findings,
)
from shiftlens.analyses.training.shown_examples import by_checker, choose_examples
from shiftlens.analyses.training.training_settings import ShiftSettings, shift_settings
from shiftlens.errors import ConfigError
from shiftlens.results.section import Section
from shiftlens.results.sentence import sentence
from shiftlens.results.verdict import judge
from shiftlens.scores.saliency_options import saliency_options
from shiftlens.stats.rates import paired_interval, rate_change, wilson

Z = 1.959963984540054


def test_wilson_interval_is_the_root_of_its_equation():
    for passed, n in ((0, 7), (3, 34), (17, 34), (200, 204)):
        low, high = wilson(passed, n)
        for bound in (low, high):
            # The rate that lies just Z standard errors of its own from what was seen.
            assert (passed / n - bound) ** 2 == pytest.approx(Z**2 * bound * (1 - bound) / n, abs=1e-12)
        assert low <= passed / n <= high


def test_mcnemar_counts_only_the_prompts_that_changed():
    before = [True] * 5 + [False] * 9 + [True] * 2 + [False] * 4
    after = [True] * 5 + [True] * 9 + [False] * 2 + [False] * 4
    found = rate_change(before, after)
    assert (found.n, found.gained, found.lost) == (20, 9, 2)
    # As unlikely as 9 of 11 or more so, on both sides, were each a coin.
    tail = sum(math.comb(11, k) for k in range(9, 12)) / 2**11
    assert found.p == pytest.approx(2 * tail)
    assert (found.before, found.after, found.difference) == (7 / 20, 14 / 20, pytest.approx(7 / 20))
    assert rate_change([True], [True]).p == 1.0
    assert found.to_dict()["before_ci"] == list(wilson(7, 20))
    for bad in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="as many results before as after"):
            rate_change(*bad)


def test_paired_interval_covers_and_is_symmetric():
    up, down, n = 10 / 22, 3 / 22, 20
    half = Z * math.sqrt((up + down - (up - down) ** 2) / 22)
    assert paired_interval(9, 2, n) == pytest.approx((up - down - half, up - down + half))
    assert paired_interval(2, 9, n) == pytest.approx(tuple(-b for b in reversed(paired_interval(9, 2, n))))
    # Simulated: of many samples, about 95 % have the true difference in the interval.
    rng = np.random.default_rng(0)
    gained, lost = (draw.tolist() for draw in rng.multinomial(34, [0.3, 0.1, 0.6], 2000).T[:2])
    hits = [low <= 0.2 <= high for low, high in map(lambda g, lo: paired_interval(g, lo, 34), gained, lost)]
    assert 0.93 <= np.mean(hits) <= 0.985


def test_curves_have_the_names_that_loggers_get():
    check = {"name": "all", "checks": [{"name": "bullets", "count": 2}, {"name": "lowercase"}]}
    points = follow_points(4, [(checker(check), True), ("words", False), ("words", True)])
    assert logged(points) == {
        "during/follow_rate": pytest.approx(2 / 3),
        "during/follow_rate/bullets+lowercase": 1.0,
        "during/follow_rate/words": 0.5,
    }
    table = curves_table(points)
    assert table.dtypes.astype(str).to_dict()["n"] == "int64"
    assert table.loc[0, "std"] == pytest.approx(math.sqrt(1 / 3))
    assert math.isnan(table.loc[1, "std"])  # one response has no spread


def test_pairs_count_heads_that_gained_less_heads_that_lost():
    shares = pd.DataFrame(
        [("write", "instruction", "1", 5, 1), ("list", "instruction", "1", 0, 0), ("get", "general", "1", 1, 3)],
        columns=["verb", "kind", "layers", "more", "fewer"],
    )
    values = {p.measure: p.value for p in pair_points(8, shares, {"1": 8})}
    assert values == {"pairs_instruction": (4 / 8 + 0) / 2, "pairs_general": -2 / 8}


def made_probes(scores: dict[str, dict[int, list[float]]]) -> pd.DataFrame:
    rows = [
        {
            "step": step, "text": text, "id": f"p{i}", "dataset": "d", "instruction_score": value,
            "density_instruction": value / 2, "density_context": None if i == 0 else value / 3,
            "density_other": 0.25, "followed": bool((i + step) % 2), "n_response": 3, "prompt": "P", "response": f"r{step}",
        }
        for text, looks in scores.items() for step, values in looks.items() for i, value in enumerate(values)
    ]  # fmt: skip
    return probes_table(rows)


def test_density_findings_are_paired_tests_corrected_together():
    first, last, fixed = [0.2, 0.5, 0.4, 0.9, 0.3], [0.6, 0.8, 0.5, 1.3, 0.5], [0.3, 0.4, 0.5, 0.8, 0.4]
    probes = made_probes({"own": {0: first, 6: last}, "fixed": {0: first, 6: fixed}})
    found = {finding.name: finding for finding in Section(density_findings(probes, (0, 6))).findings}
    assert len(found) == 6
    own = found["tuning/own/density_instruction"]
    difference = (np.array(last) - np.array(first)) / 2
    t = difference.mean() / (difference.std(ddof=1) / math.sqrt(5))
    assert own.statistic == pytest.approx(t)
    assert own.p == pytest.approx(2 * stats.t.sf(t, 4))
    assert own.effect == pytest.approx(difference.mean())
    context = found["tuning/own/density_context"]
    assert context.n == 4 and "of the prompts that have such tokens" in context.note
    assert found["tuning/own/density_other"].verdict == "not testable"  # no prompt differs
    tested = sorted((f.p, f.p_corrected) for f in found.values() if f.p is not None)
    steps = [min(1.0, (len(tested) - i) * p) for i, (p, _) in enumerate(tested)]
    assert [corrected for _, corrected in tested] == pytest.approx(np.maximum.accumulate(steps).tolist())
    assert own.p_corrected is not None
    assert own.verdict == ("supported" if own.p_corrected <= 0.05 else "not supported")
    assert judge(replace(own, p_corrected=0.2)).verdict == "not supported"


def test_trend_is_the_mean_rank_correlation_of_the_prompts():
    looks = {0: [1.0, 4.0, 2.0], 3: [2.0, 3.0, 2.0], 6: [3.0, 2.0, 2.0], 9: [5.0, 3.5, 2.0]}
    (own,) = Section(trend_findings(made_probes({"own": looks}))).findings

    def rho(values):
        ranks = [sorted(values).index(v) for v in values]
        return 1 - 6 * sum((r - i) ** 2 for i, r in enumerate(ranks)) / (4 * 15)

    assert own.effect == pytest.approx((rho([1, 2, 3, 5]) + rho([4, 3, 2, 3.5]) + 0) / 3)
    assert own.n == 3
    (few,) = Section(trend_findings(made_probes({"own": {step: looks[step] for step in (0, 3, 9)}}))).findings
    assert few.verdict == "not testable" and few.why_not == "needs at least 4 looks, has 3"


def test_no_trend_is_found_where_there_is_none():
    # Every order of four looks once: the mean rho is exactly 0.
    orders = np.array(list(permutations([1.0, 2.0, 3.0, 4.0])))
    looks = {step: orders[:, i].tolist() for i, step in enumerate((0, 1, 2, 3))}
    (found,) = Section(trend_findings(made_probes({"own": looks}))).findings
    assert found.effect == pytest.approx(0, abs=1e-12)
    assert found.verdict == "not supported"
    assert sentence(found).startswith(f"{found.question} On d: mean Spearman rho 0.00 [")
    assert "higher" not in sentence(found)


def test_sentences_claim_a_change_only_with_its_p():
    def told(before, after):
        return judge(follow_finding(rate_change(before, after), "mine"))

    rate = "On mine, the follow rate on held-out prompts"
    rose = told([False] * 20, [True] * 12 + [False] * 8)
    assert sentence(rose).startswith(f"{rate} is higher for after than for before: 60.0% vs 0.0%, difference of")
    assert rose.verdict == "supported"
    fell = told([True] * 20, [True] * 8 + [False] * 12)
    assert sentence(fell).startswith(f"{rate} is higher for before than for after: 100.0% vs 40.0%")
    assert fell.verdict == "supported" and fell.effect == pytest.approx(-0.6)
    same = told([True, False], [False, True])
    assert sentence(same).startswith(f"{rate} shows no clear difference between before and after: 50.0% vs 50.0%")
    assert same.verdict == "not supported"


def test_examples_take_each_outcome_in_turn():
    probes = made_probes({"own": {0: [0.0] * 4, 2: [0.0] * 4, 5: [0.0] * 4}})
    chosen = choose_examples(probes, 3)  # followed at step 0: odd prompts; at step 5: even ones
    assert [c["id"] for c in chosen] == ["p0", "p1", "p2"]
    assert [c["outcome"] for c in chosen][:2] == ["followed only after", "followed only before"]
    assert [(r["when"], r["text"]) for r in chosen[0]["responses"]] == [
        ("before", "r0"), ("during", "r2"), ("after", "r5"),
    ]  # fmt: skip
    held_out = pd.DataFrame(
        {"checker": ["a", "b", "b"], "before": [True, False, True], "after": [True, True, True]}
    )
    assert by_checker(held_out)[0] == {"checker": "b", "n": 2, "before": 1, "after": 2}


def test_every_wrong_setting_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        shift_settings(
            {
                "every": 0,
                "probes": True,
                "rotation": "often",
                "pairs": 0,
                "layers": [-1],
                "fixed": "yes",
                "seed": -1,
            }
        )
    told = str(caught.value)
    for key in ("every=0", "probes=True", "rotation=often", "pairs=0", "layers=[-1]", "fixed=yes", "seed=-1"):
        assert f"callbacks.shift.{key}: expected" in told
    with pytest.raises(ConfigError, match="callbacks.shift.evry: no such key"):
        shift_settings({"evry": 2})
    with pytest.raises(ConfigError) as caught:
        saliency_options({"L": 0, "mode": "fast", "target": "x", "memory_budget": -1, "batch_tokens": 0})
    assert [
        key
        for key in ("saliency.L=", "mode=", "target=", "memory_budget=", "batch_tokens=")
        if key not in str(caught.value)
    ] == []


def test_parts_are_due_as_often_as_asked():
    asked = ShiftSettings(follow="each", density=2, rotation="ends", pairs="off")
    assert [asked.due(look, look == 4) for look in range(5)] == [
        ["follow", "density", "rotation"], ["follow"], ["follow", "density"], ["follow"], ["follow", "density", "rotation"],
    ]  # fmt: skip


def test_points_of_one_look_have_one_name_each():
    points = [Point(0, "profile", str(i), 0.1, math.nan, 1) for i in range(10)]
    assert len(logged(points)) == 10
