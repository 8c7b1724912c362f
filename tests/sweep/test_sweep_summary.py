"""The summary of a sweep: corrected over the cells of a question, told as it was tested, whatever happens."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.sweep_tables import finding, write_job

from shiftlens.sweep import JobRecord, Plan
from shiftlens.sweep.cells import cells_table, corrected
from shiftlens.sweep.records import label, swept
from shiftlens.sweep.summary import summarise


def naive_holm(ps: list[float]) -> list[float]:
    order = sorted(range(len(ps)), key=ps.__getitem__)
    result, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        result[i] = highest
    return result


def test_lost_jobs_and_those_that_never_started_are_named(tmp_path):
    plan = [["saliency.b=0"], ["saliency.b=<i>"], ["saliency.b=2"]]
    Plan(plan, "joblib").write(tmp_path)
    write_job(tmp_path, 0, [finding(0.01)], L=10, b=0, p=4).write(tmp_path)
    JobRecord(1, plan[1], folder="1").write(tmp_path)
    summary = summarise(tmp_path)
    assert [job.status for job in summary.jobs] == ["done", "lost", "not started"]
    assert not summary.complete
    page = summary.page.read_text()
    assert "Not testable" not in page
    assert "saliency.b=&lt;i&gt;" in page
    assert "<i>" not in page


def test_maps_of_a_question_have_the_same_rows_and_tell_corrected_p(tmp_path):
    effects = {(10, 0): -0.004, (10, 5): 0.5, (20, 0): -0.3, (20, 5): 0.1, (20, 12): 0.2}
    ps = {(10, 0): 0.9, (10, 5): 0.001, (20, 0): 0.8, (20, 5): 0.2, (20, 12): 0.04}
    plan = [[f"saliency.L={L}", f"saliency.b={b}", "saliency.p=4"] for L in (10, 20) for b in (0, 5, 12)]
    Plan(plan, "basic").write(tmp_path)
    for number, (L, b) in enumerate((L, b) for L in (10, 20) for b in (0, 5, 12)):
        if (L, b) in effects:
            found = [
                finding(ps[L, b], effect=effects[L, b], effect_name="g"),
                finding(None, "a/first", why_not="<few>"),
            ]
            write_job(tmp_path, number, found, L=L, b=b, p=4).write(tmp_path)
    holm = dict(zip(ps, naive_holm(list(ps.values())), strict=True))
    summary = summarise(tmp_path)
    page = summary.page.read_text()
    assert "launcher local" in page
    assert "Not testable in any of 5 cells: &lt;few&gt;." in page
    assert f"p ≤ 0.05 after correction in {sum(p <= 0.05 for p in holm.values())} of 5 cells" in page
    order = [page.index(mark) for mark in ("<code>x/y</code></h3>", "<code>a/first</code></h3>")]
    assert order == sorted(order)
    listed = re.findall(r'<th scope="row"><code>(.*?)</code>', page)
    assert listed == ["x/y"] * 5 + ["a/first"] * 5
    stands = summary.cells.set_index(["name", "saliency.L", "saliency.b"])["stands"]
    levels = re.findall(r"<caption.*?L = (\d+)</caption>.*?<tbody>(.*?)</tbody>", page, re.S)
    for L, body in levels:
        rows = re.findall(r'<th scope="row">(\d+)</th>(.*?)</tr>', body)
        assert [b for b, _ in rows] == ["0", "5", "12"]
        for b, cell in rows:
            key = int(L), int(b)
            shown = re.search(r">([−\d.]+)</a><small>p (&gt; )?([\d.]+)</small>", cell)
            assert (shown is None) == (key not in effects)
            assert ('class="stands"' in cell) == (holm.get(key, 1) <= 0.05)
            assert ('class="stands"' in cell) == stands.get(("x/y", *key), False)
            if shown:
                assert float(shown[1].replace("−", "-")) == pytest.approx(effects[key], abs=0.005)
                assert bool(shown[2]) == (holm[key] > 0.99)
                assert float(shown[3]) == pytest.approx(holm[key], rel=0.05)
    assert [L for L, _ in levels] == ["10", "20"]
    assert "−0.00" not in page and "-0.00" not in page


def test_a_sweep_without_a_single_result_has_a_summary(tmp_path):
    Plan([["seed=0"], ["seed=1"]], "ray").write(tmp_path)
    summary = summarise(tmp_path)
    assert summary.lines()[0] == "Sweep: 0 of 2 jobs done"
    assert "No job has findings" in summary.page.read_text()


def table(**columns: object) -> pd.DataFrame:
    blank = {"name": "x/y", "data": "d", "n": 9, "p_corrected": np.nan, "_unit": "", "_grid": False}
    return pd.DataFrame({**blank, **columns})


def test_p_values_are_corrected_over_the_cells_of_a_question():
    ps = np.random.default_rng(0).uniform(0, 0.2, 12)
    got = corrected(table(p=ps, effect=range(12)))
    assert got["p_sweep"].tolist() == pytest.approx(naive_holm(ps.tolist()))
    # Not testable: no p and no part. Another question: a family of its own.
    more = pd.concat(
        [table(p=ps, effect=range(12)), table(p=[np.nan], effect=np.nan), table(p=[0.04], effect=1, name="z")],
        ignore_index=True,
    )
    got = corrected(more)
    assert got["p_sweep"].tolist() == pytest.approx([*naive_holm(ps.tolist()), np.nan, 0.04], nan_ok=True)


def test_a_test_that_does_not_depend_on_the_settings_counts_once():
    got = corrected(table(p=[0.01] * 5 + [0.02] * 5, effect=[1.0] * 5 + [2.0] * 5))
    assert got["p_sweep"].tolist() == pytest.approx([0.02] * 10)
    within = corrected(table(p=[0.01, 0.02], p_corrected=[0.03, np.nan], effect=[1.0, 2.0]))
    assert within["p_sweep"].tolist() == pytest.approx([0.04, 0.04])


def test_a_grid_correction_leaves_the_other_choices():
    grid = {"p": 0.001, "effect": [1.0, 2.0, 3.0, 4.0], "_grid": True, "p_corrected": [0.01, 0.02, 0.03, 0.6]}
    assert corrected(table(**grid))["p_sweep"].tolist() == [0.01, 0.02, 0.03, 0.6]
    pairs = corrected(table(**grid, _unit=["m=1", "m=2", "m=1", "m=2"]))
    assert pairs["p_sweep"].tolist() == pytest.approx([0.02, 0.04, 0.06, 1.0])


def test_what_sets_a_job_apart():
    jobs = [["model=a", "saliency.b=0", "+x=1"], ["model=a", "saliency.b=3"]]
    assert swept(jobs) == ["saliency.b", "+x"]
    assert label(jobs[1], swept(jobs)) == "saliency.b=3"


GRID_LABEL = "max-T permutation over 50 settings"


def one_sweep(folder: Path, renamed: dict[str, str], **more: object) -> pd.DataFrame:
    """Cells of four jobs, two pairs at two settings, whose companion tests have other labels."""
    jobs = []
    for number, (pair, b) in enumerate((pair, b) for pair in ("m", "n") for b in (0, 3)):
        others = {renamed.get(GRID_LABEL, GRID_LABEL): 0.01, renamed.get("Wilcoxon", "Wilcoxon"): 0.2}
        tested = finding(0.001 * (number + 1), p_corrected=0.01 * (number + 1), p_others=others, **more)
        job = write_job(folder, number, [tested], L=10, b=b, p=4)
        jobs.append(JobRecord(number, [f"model={pair}", *job.overrides], "done", job.folder))
    return cells_table(folder, jobs)


def test_the_correction_goes_by_what_was_corrected_over_and_not_by_labels(tmp_path):
    over = {"corrected_over": ["L", "b", "p", "data"], "expected": "tuned"}
    as_named = one_sweep(tmp_path / "a", {}, **over)
    renamed = one_sweep(tmp_path / "b", {GRID_LABEL: "largest t of all", "Wilcoxon": GRID_LABEL}, **over)
    for cells in (as_named, renamed):
        assert set(cells["correction"]) == {"max-T over L, b, p, Bonferroni over 2 other choices"}
        assert cells["p_sweep"].tolist() == pytest.approx([0.02, 0.04, 0.06, 0.08])
        assert cells["stands"].tolist() == [True, True, False, False]
    # A label alone, without the field, does not stand for a correction over the grid.
    unsaid = one_sweep(tmp_path / "c", {}, corrected_over=["data"])
    assert set(unsaid["correction"]) == {"Holm over 4 tests"}
    assert unsaid["p_sweep"].tolist() == pytest.approx(naive_holm([0.01, 0.02, 0.03, 0.04]))


def test_a_one_sided_cell_stands_on_the_side_that_was_asked(tmp_path):
    asked = [
        finding(0.05, name="above", effect=0.4, expected="tuned"),
        finding(0.05, name="below", effect=-0.4, expected="tuned"),
        finding(0.05, name="either", effect=-0.4),
        finding(None, name="none", effect=None, expected="tuned", why_not="few"),
    ]
    cells = cells_table(tmp_path, [write_job(tmp_path, 0, asked, L=10, b=0, p=4)])
    assert dict(zip(cells["name"], cells["stands"], strict=True)) == {
        "above": True, "below": False, "either": True, "none": False,
    }  # fmt: skip
    assert cells["why_not"].tolist() == ["", "", "", "few"]
