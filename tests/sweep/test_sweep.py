"""Sweeps: every launcher gives what single runs give, failed jobs are named, and there is a summary whatever happens."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.command import RECORDS, run
from helpers.sweep_tables import cells, rows_per_key
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import open_dict
from rich.console import Console
from safetensors.torch import load_file, save_file

from shiftlens.attribution import Engine, Ledger
from shiftlens.errors import ConfigError
from shiftlens.models.identity import Identity
from shiftlens.run.runner import Runner
from shiftlens.sweep import JobRecord, Plan, SweepCallback, summarised
from shiftlens.sweep.cells import corrected
from shiftlens.sweep.launchers import check_launcher, has_launcher
from shiftlens.sweep.records import label, swept
from shiftlens.sweep.summary import summarise

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
PROMPTS = [
    {**record, "id": f"{i}{record['id']}", "text": record["text"] + " now" * i, "rating": 1 + i}
    for record in RECORDS
    for i in range(2)
]


@pytest.fixture(scope="module")
def words(pair, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "my.jsonl"
    path.write_text("\n".join(map(json.dumps, PROMPTS)))
    return [
        f"model.base={pair[0]}", f"model.tuned={pair[1]}", "data=jsonl", f"data.path={path}", "data.max_new_tokens=8",
        "logger=none", "paths.ledger=ledger", "paths.cache=cache", "saliency.mode=reverse", "~callbacks.progress",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def local(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    done = run("-m", *words, "saliency.b=0,99,3", "saliency.p=2,4", "hydra.sweep.dir=out", cwd=folder)
    return folder, done


def test_failed_jobs_are_named_and_the_others_run(local):
    folder, done = local
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    finished = [line for line in lines if line.startswith("[") and "/6] job" in line]
    assert len(finished) == 6
    assert "Sweep: 4 of 6 jobs done" in lines
    error = "saliency.b=99: expected a whole number from 0 to saliency.L-1=9"
    closing = lines[lines.index("Sweep: 4 of 6 jobs done") :]
    assert [line.strip() for line in closing if "failed" in line] == [
        f"job 2 failed after 0 s: saliency.b=99 saliency.p=2: {error}",
        f"job 3 failed after 0 s: saliency.b=99 saliency.p=4: {error}",
    ]
    assert f"Summary: {folder / 'out' / 'summary.html'}" in closing
    page = (folder / "out" / "summary.html").read_text()
    assert page.count(error) == 2
    assert "<script" not in page
    jobs = pd.read_parquet(folder / "out" / "tables" / "jobs.parquet").set_index("number")
    assert jobs["status"].tolist() == ["done", "done", "failed", "failed", "done", "done"]
    assert set(cells(folder / "out")["job"]) == {0, 1, 4, 5}


def test_the_summary_has_the_numbers_of_a_single_run(local, words, tmp_path):
    done = run(*words, "saliency.b=3", "saliency.p=2", "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = cells(local[0] / "out").loc[3, 2]
    record = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert len(record["findings"]) == len(found)
    for finding in record["findings"]:
        cell = found.loc[finding["name"], finding["data"]]
        for key in ("effect", "p", "p_corrected", "statistic"):
            want = np.nan if finding[key] is None else finding[key]
            assert cell[key] == pytest.approx(want, rel=1e-6, nan_ok=True), (finding["name"], key)
        assert cell["n"] == finding["n"]
    assert found["p"].notna().sum() >= 2


@pytest.mark.parametrize("launcher", ["joblib", "slurm_local", "ray"])
def test_every_launcher_gives_the_same_and_explains_each_sample_once(launcher, local, words, tmp_path):
    if not has_launcher(launcher):
        pytest.skip(f"the Hydra plugin of launcher={launcher} is not installed")
    more = {
        "joblib": ["launcher.n_jobs=2", "logger=wandb"],
        "ray": ["launcher.total_cpus=2"],
        "slurm_local": ["launcher.timeout_min=5"],
    }[launcher]
    values = {"slurm_local": "0,99"}.get(launcher, "0,3,99")
    done_of = [int(b) for b in values.split(",") if b != "99"]
    args = [*words, *more, f"launcher={launcher}", f"saliency.b={values}", "saliency.p=4", "hydra.sweep.dir=out"]
    done = run("-m", *args, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"Sweep: {len(done_of)} of {len(done_of) + 1} jobs done" in done.stdout
    assert f"job {len(done_of)} failed" in done.stdout
    columns = ["n", "effect", "p", "p_corrected", "statistic", "ci_low", "ci_high"]
    found = cells(tmp_path / "out")[columns]
    want = cells(local[0] / "out").xs(4, level=1, drop_level=False).loc[done_of, columns]
    pd.testing.assert_frame_equal(found.sort_index(), want.sort_index(), rtol=1e-6)
    # Jobs began at the same time, and one waited for the other: two models, the prompts once each.
    assert sorted(rows_per_key(tmp_path).values()) == [1] * (2 * len(PROMPTS))
    if launcher == "joblib":
        assert "upload them with: wandb sync" in done.stdout
        for number, b in enumerate((0, 3)):
            run_dir = next((tmp_path / "out" / str(number)).glob("wandb/offline-run-*"))
            command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", run_dir]
            told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
            (logged,) = (r["run"] for r in map(json.loads, told.splitlines()) if r["type"] == "run")
            assert (logged["run_group"], logged["display_name"]) == ("out", f"saliency.b={b}")


def test_a_sweep_over_models_computes_the_base_once(words, pair, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(pair[1], other)
    weights = load_file(other / "model.safetensors")
    save_file(
        {name: 0.9 * weight for name, weight in weights.items()}, other / "model.safetensors", {"format": "pt"}
    )
    done = run("-m", *words, f"model.tuned={pair[1]},{other}", "hydra.sweep.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = done.stdout.split("#1 :")
    assert "base: 6 samples to explain" in first
    assert "base: all 6 samples are in the ledger; no model work" in second
    assert "tuned: 6 samples to explain" in second
    assert "Sweep: 2 of 2 jobs done" in done.stdout
    table = pd.read_parquet(tmp_path / "out" / "tables" / "cells.parquet")
    tested = table[table["p"].notna() & (table["name"] == "density/base_vs_tuned")]
    # Each pair's p is corrected over the settings in its run; here for there being two pairs.
    assert tested["p_sweep"].tolist() == pytest.approx(np.minimum(1, 2 * tested["p_corrected"]).tolist())


@pytest.mark.parametrize(("launcher", "refused"), [("a.plugin.JoblibLauncher", True), (BASIC, False)])
def test_ranks_that_a_launcher_cannot_start_are_refused(launcher, refused, tmp_path, monkeypatch):
    with initialize_config_module("shiftlens.conf", version_base="1.3"):
        cfg = compose("analyze", return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.mode = RunMode.MULTIRUN
        cfg.hydra.launcher._target_ = launcher
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    HydraConfig.instance().set_config(cfg)
    two = {"accelerator": "cpu", "devices": 2}
    runner = Runner(tmp_path, tmp_path, two, [], Engine(), 1, Console())
    ledger = Ledger(tmp_path, Identity("m", "f00", "", "float32"))
    if not refused:
        assert runner._trainer(ledger).world_size == 2
        return
    with pytest.raises(ConfigError, match="2 ranks for each job of this sweep"):
        runner._trainer(ledger)
    runner.trainer["devices"] = 1
    assert runner._trainer(ledger).world_size == 1


def test_two_ranks_go_through_a_local_sweep_side_by_side(local, words, tmp_path):
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    done = run("-m", *words, *two, "saliency.b=0,3", "saliency.p=4", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Summary:") == 1
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()  # both ranks meant the same one
    found, want = cells(folder)["p"], cells(local[0] / "out").xs(4, level=1, drop_level=False)["p"]
    pd.testing.assert_series_equal(found.sort_index(), want.sort_index(), rtol=1e-3)


def finding(p: float | None, name: str = "x/y", **more: object) -> dict[str, object]:
    blank = dict.fromkeys(("question", "role", "view", "test", "effect_name", "verdict", "note"), "")
    return {
        **blank, "name": name, "data": "d", "n": 9, "effect": p, "statistic": None, "ci": None, "p": p,
        "p_corrected": None, "p_others": {}, **more,
    }  # fmt: skip


def write_job(sweep: Path, number: int, findings: list[dict[str, object]], **settings: int) -> JobRecord:
    folder = sweep / str(number)
    folder.mkdir(parents=True)
    record = {
        "findings": findings,
        "provenance": {"models": {"base": {"name": "a"}, "tuned": {"name": "b"}}, "settings": settings},
    }
    (folder / "findings.json").write_text(json.dumps(record))
    return JobRecord(number, [f"saliency.{k}={v}" for k, v in settings.items()], "done", str(number), 0.0, 1.0)


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
                finding(None, "a/first", note="not testable: <few>"),
            ]
            write_job(tmp_path, number, found, L=L, b=b, p=4).write(tmp_path)
    summary = summarise(tmp_path)
    page = summary.page.read_text()
    assert "launcher local" in page
    assert "Not testable in any of 5 cells: &lt;few&gt;." in page
    order = [page.index(mark) for mark in ("<code>x/y</code></h3>", "<code>a/first</code></h3>")]
    assert order == sorted(order)
    listed = re.findall(r'<th scope="row"><code>(.*?)</code>', page)
    assert listed == ["x/y"] * 5 + ["a/first"] * 5
    levels = re.findall(r"<caption.*?L = (\d+)</caption>.*?<tbody>(.*?)</tbody>", page, re.S)
    holm = dict(zip(ps, naive_holm(list(ps.values())), strict=True))
    for L, body in levels:
        rows = re.findall(r'<th scope="row">(\d+)</th>(.*?)</tr>', body)
        assert [b for b, _ in rows] == ["0", "5", "12"]
        for b, cell in rows:
            key = int(L), int(b)
            shown = re.search(r">([−\d.]+)</a><small>p (&gt; )?([\d.]+)</small>", cell)
            assert (shown is None) == (key not in effects)
            assert ('class="stands"' in cell) == (holm.get(key, 1) < 0.05)
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


def test_a_launcher_that_raises_does_not_cost_the_summary(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["analyze.py"])
    folder = tmp_path / "it's here"
    with initialize_config_module("shiftlens.conf", version_base="1.3"):
        cfg = compose("analyze", return_hydra_config=True)
        with open_dict(cfg):
            cfg.hydra.sweep.dir = str(folder)
            cfg.hydra.overrides.task = ["saliency.b=0,3", "seed=1"]
            cfg.hydra.runtime.choices = {"hydra/launcher": "joblib"}

        def lose_a_worker() -> None:
            with summarised():
                SweepCallback().on_multirun_start(cfg)
                raise RuntimeError("a worker was killed")

        with pytest.raises(RuntimeError, match="a worker was killed"):
            lose_a_worker()
        # Ranks run the command line again and jobs compose anew; both must mean this folder.
        assert cfg.hydra.overrides.hydra[-1] == sys.argv[-1]
        assert compose("analyze", [sys.argv[-1]], return_hydra_config=True).hydra.sweep.dir == str(folder)
    jobs = pd.read_parquet(folder / "tables" / "jobs.parquet")
    assert jobs["overrides"].tolist() == ["saliency.b=0 seed=1", "saliency.b=3 seed=1"]
    assert jobs["status"].tolist() == ["not started"] * 2
    with summarised():  # told once, not again at the end of the next command
        pass


def test_a_launcher_without_its_plugin_says_what_to_install(monkeypatch):
    monkeypatch.setattr("shiftlens.sweep.launchers.find_spec", lambda name: None)
    check_launcher(["-m", "launcher=local", "saliency.b=0,3"])
    with pytest.raises(ConfigError, match=r"launcher=slurm_local needs .* 'shiftlens\[slurm\]'"):
        check_launcher(["-m", "launcher=slurm_local"])


def naive_holm(ps: list[float]) -> list[float]:
    order = sorted(range(len(ps)), key=ps.__getitem__)
    result, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        result[i] = highest
    return result


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
