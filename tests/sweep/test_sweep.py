"""Sweeps: every launcher gives what single runs give, failed jobs are named, and there is a summary whatever happens."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.command import RECORDS, run, run_here
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
from shiftlens.sweep import SweepCallback, summarised
from shiftlens.sweep.launchers import check_launcher, has_launcher

pytestmark = pytest.mark.command

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
        "saliency.method=gradient",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def local(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    done = run_here("-m", *words, "saliency.b=0,99,3", "saliency.p=2,4", "hydra.sweep.dir=out", cwd=folder)
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
    done = run_here(*words, "saliency.b=3", "saliency.p=2", "hydra.run.dir=out", cwd=tmp_path)
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
        assert cell["why_not"] == finding["why_not"]
        assert cell["expected"] == finding["expected"]
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
    done = run_here("-m", *words, f"model.tuned={pair[1]},{other}", "hydra.sweep.dir=out", cwd=tmp_path)
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
