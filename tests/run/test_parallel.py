"""Two processes share the prompts: the same rows and findings as one, and nothing lost when they are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.command import ROOT, run, run_here

pytestmark = pytest.mark.command

WORDS = [
    "write",
    "fix",
    "translate",
    "the",
    "words",
    "in",
    "order",
    "grammar",
    "please",
    "French",
    "me",
    "and",
    "him",
    "goes",
]
TWO_RANKS = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "analyze.py"), *words]


def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "160", "SHIFTLENS_CHECK_SHAPES": "0", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def words(pair, tmp_path_factory):
    """The arguments of a run on seven prompts with the tiny pair."""
    path = tmp_path_factory.mktemp("data") / "seven.jsonl"
    draw = random.Random(0)
    records = [
        {
            "id": f"p{i}",
            "text": " ".join(draw.choices(WORDS, k=4 + 3 * i)),
            "instruction": [[0, 8]],
            "rating": 1 + i % 3,
        }
        for i in range(7)
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return [
        f"model.base={pair[0]}", f"model.tuned={pair[1]}", "data=jsonl", f"data.path={path}", "saliency.b=0",
        "data.max_new_tokens=40", "logger=none", "paths.ledger=ledger", "hydra.run.dir=out", "paths.cache=cache",
        "saliency.method=gradient",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def single(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    done = run_here(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def rows(folder: Path) -> dict[str, dict]:
    return {
        row["key"]: row for shard in folder.glob("ledger/*/*.parquet") for row in pq.read_table(shard).to_pylist()
    }


def same_results(a: Path, b: Path) -> None:
    one, other = rows(a), rows(b)
    assert one.keys() == other.keys()
    assert len(one) == 14
    for key, row in one.items():
        assert row["input_ids"] == other[key]["input_ids"]
        want, got = (np.array(r["values"]) for r in (row, other[key]))
        np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
    findings = [json.loads((folder / "out" / "findings.json").read_text())["findings"] for folder in (a, b)]
    for want, got in zip(*findings, strict=True):
        assert got["name"] == want["name"]
        assert got["n"] == want["n"]
        assert got["p"] == (want["p"] and pytest.approx(want["p"], rel=1e-3))
    assert sum(finding["p"] is not None for finding in findings[0]) >= 2


def test_two_ranks_give_the_rows_and_findings_of_one(words, single, tmp_path):
    done = run(*words, *TWO_RANKS, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    # Each of the two wrote shards of its own; only the first one wrote the outputs, and spoke.
    assert len(list(tmp_path.glob("ledger/*/*.parquet"))) >= 4
    assert done.stdout.count("What changed") == 1
    samples = pd.read_parquet(tmp_path / "out" / "tables" / "samples.parquet")
    means = samples.groupby("role")["instruction_score"].mean()
    told = [line.split()[-1] for line in done.stdout.splitlines() if "mean instruction score of these" in line]
    assert sorted(told) == sorted(f"{mean:.3f}" for mean in means)  # over the samples of both ranks
    same_results(single, tmp_path)


def test_fewer_prompts_than_ranks_is_refused_before_any_work(words, tmp_path):
    done = run_here(*words, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=8", cwd=tmp_path)
    assert done.returncode == 1
    assert "8 ranks for 7 prompts" in done.stderr
    assert "trainer.devices=7" in done.stderr
    assert "Traceback" not in done.stderr
    assert not rows(tmp_path)


def test_two_ranks_killed_and_resumed_by_one_lose_nothing(words, single, tmp_path):
    process = subprocess.Popen(
        command(*words, *TWO_RANKS, "saliency.mode=naive"),  # slow, so that it can be caught at work
        cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not rows(tmp_path) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    saved = rows(tmp_path)
    assert 0 < len(saved) < 14, "the run was over before it could be killed"
    done = run_here(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if "in the ledger" in line]
    assert any(f"{n} in the ledger" in told[0] or f"all {n} samples" in told[0] for n in range(1, 8))
    kept = rows(tmp_path)
    assert all(kept[key]["values"] == row["values"] for key, row in saved.items())
    same_results(single, tmp_path)
