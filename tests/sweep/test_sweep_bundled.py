"""Sweeps over the bundled pair, the real model of 135M parameters, by launchers that run two jobs at once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers.command import run
from helpers.in_process import RECORDS, analyze
from helpers.sweep_tables import cells, rows_per_key

from shiftlens.sweep.launchers import has_launcher

pytestmark = pytest.mark.command

SETTINGS = [(0, 4), (3, 4)]
NUMBERS = ["n", "effect", "p", "p_corrected", "statistic", "ci_low", "ci_high"]
WORDS = ["data.max_new_tokens=4", "saliency.mode=reverse", "logger=none", "report.maps=1"]


@pytest.fixture(scope="module")
def single(real_base, tmp_path_factory):
    """The findings of a run of its own under each setting."""
    folder = tmp_path_factory.mktemp("single")
    found = {}
    for b, p in SETTINGS:
        analysis, _ = analyze(folder, None, *WORDS, f"saliency.b={b}", f"saliency.p={p}", records=RECORDS[:2])
        for f in analysis.findings:
            low, high = f.ci or (None, None)
            found[b, p, f.name, f.data] = (f.n, f.effect, f.p, f.p_corrected, f.statistic, low, high)
    return folder, pd.DataFrame.from_dict(found, orient="index", columns=NUMBERS).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "two"), [("joblib", "launcher.n_jobs=2"), ("ray", "launcher.total_cpus=2")])
def test_two_workers_share_a_ledger_and_find_what_single_runs_find(launcher, two, single, tmp_path):
    if not has_launcher(launcher):
        pytest.skip(f"the Hydra plugin of launcher={launcher} is not installed")
    folder, want = single
    done = run(
        "-m", "model=bundled", "data=jsonl", f"data.path={folder / 'prompts.jsonl'}", *WORDS, "paths.ledger=ledger",
        f"launcher={launcher}", two, "saliency.b=0,3", "saliency.p=4", "hydra.sweep.dir=out", "~callbacks.progress",
        cwd=tmp_path, OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Sweep: 2 of 2 jobs done" in done.stdout
    assert (tmp_path / "out" / "summary.html").stat().st_size > 0
    found = cells(tmp_path / "out")[NUMBERS].astype(float)
    assert found["p"].notna().sum() >= len(SETTINGS)
    want.index = pd.MultiIndex.from_tuples(want.index, names=found.index.names)
    pd.testing.assert_frame_equal(found.sort_index(), want.sort_index(), rtol=1e-6)
    # Two models, two prompts, each explained once, whichever job came first.
    assert sorted(rows_per_key(tmp_path).values()) == [1] * 8  # two prompts, two models, two methods
    assert np.unique(pd.read_parquet(tmp_path / "out" / "tables" / "jobs.parquet")["status"]).tolist() == ["done"]
