"""The published scores from the command: the published numbers, from tables and from pickles."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.imported_scores import QUIET, analyze, options, pickles
from helpers.reference import FOLDER, needs_reference, published

from shiftlens.analyses.imported.sentencepiece_text import span_masks
from shiftlens.prompts.schema import Prompt
from shiftlens.run.scores_run import run_scores


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("full")
    words = [f"data.base={FOLDER / 'llama_7b.parquet'}", f"data.tuned={FOLDER / 'vicuna_7b.parquet'}"]
    done = analyze(*words, "logger=none", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out", done.stdout


@needs_reference
def test_the_command_hits_the_published_numbers(full):
    record = json.loads((full[0] / "findings.json").read_text())
    found = {(f["name"], f["data"]): f for f in record["findings"]}
    t1 = {
        "self_instruct": ((194, 1.2911, 0.5216), (44, 0.9739, 0.4377), "4.57e-05"),
        "lima": ((249, 1.4045, 0.4896), (50, 1.0937, 0.4566), "2.59e-05"),
    }
    for data, (followed, unfollowed, p) in t1.items():
        finding = found["density/followed_vs_unfollowed", data]
        for name, expected in (("followed", followed), ("unfollowed", unfollowed)):
            group = finding["groups"][name]
            assert (group["n"], round(group["mean"], 4), round(group["std"], 4)) == expected
        assert f"{finding['p']:.2e}" == p
    t2 = {
        "self_instruct": (252, (1.0043, 0.4965), (1.1939, 0.5358), "2.28e-05", "3.2e-06"),
        "lima": (300, (1.0666, 0.4468), (1.3503, 0.4986), "3.88e-13", "2.9e-21"),
    }
    for data, (n, base, tuned, welch, paired) in t2.items():
        finding = found["density/base_vs_tuned", data]
        assert finding["n"] == n
        for name, expected in (("base", base), ("tuned", tuned)):
            group = finding["groups"][name]
            assert (round(group["mean"], 4), round(group["std"], 4)) == expected
        assert f"{finding['p_others']['Welch t, one-sided (unpaired, as published)']:.2e}" == welch
        assert f"{finding['p']:.1e}" == paired
        assert finding["p_corrected"] <= 0.005
        assert finding["controls"]
        assert finding["verdict"] == "gradient only"  # nobody has removed a token from these prompts
        assert finding["method"] == "gradient" and "gradient x embedding" in finding["measure"]
    assert set(pd.read_parquet(full[0] / "tables" / "sensitivity.parquet")["L"]) == {5, 10}


@needs_reference
def test_the_report_names_both_sources_and_their_content(full):
    models = json.loads((full[0] / "findings.json").read_text())["provenance"]["models"]
    page = (full[0] / "report.html").read_text(encoding="utf-8")
    for role, name in (("base", "llama_7b"), ("tuned", "vicuna_7b")):
        path = FOLDER / f"{name}.parquet"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert models[role] == {"name": name, "source": str(path), "fingerprint": digest}
    assert "<h1>What changed between <em>llama_7b</em> and <em>vicuna_7b</em></h1>" in page
    samples = pd.read_parquet(full[0] / "tables" / "samples.parquet").set_index(["role", "id"])
    assert len(samples) == 2 * 552
    assert samples.loc[("tuned", "lima_author_1"), "response"].startswith(
        "The introduction should provide a clear"
    )


@needs_reference
def test_pickles_of_the_published_scores_give_what_the_tables_give(tmp_path):
    parts = {"base": published("llama_7b").drop(columns="S"), "tuned": published("vicuna_7b").drop(columns="S")}
    empty = parts["base"]["response_tokens"].map(len) == 0
    ids = {*parts["base"]["id"][:10], *parts["base"]["id"][-10:], *parts["base"]["id"][empty]}
    for role, rows in parts.items():
        parts[role] = rows[rows["id"].isin(ids)]
        parts[role].to_parquet(tmp_path / f"{role}.parquet")
        pickles(tmp_path / role, parts[role])
    assert (parts["base"]["response_tokens"].map(len) == 0).sum() == 1
    tables = run_scores(options(tmp_path / "base.parquet", tmp_path / "tuned.parquet"), QUIET)
    again = run_scores(options(tmp_path / "base", tmp_path / "tuned", prompts=FOLDER / "vicuna_7b.parquet"), QUIET)
    assert [f.to_dict() for f in again.findings] == [f.to_dict() for f in tables.findings]
    for name in ("samples", "tokens"):
        pd.testing.assert_frame_equal(again.tables[name], tables.tables[name])


@needs_reference
def test_spans_on_pieces_are_the_published_masks():
    differ = set()
    for row in published("vicuna_7b").itertuples():
        spans = [
            tuple(tuple(map(int, span)) for span in spans) for spans in (row.instruction_spans, row.context_spans)
        ]
        instruction, context = span_masks(Prompt(row.id, row.prompt, *spans), list(row.prompt_tokens))
        assert instruction.tolist() == list(row.instruction_mask)
        if context.tolist() != list(row.context_mask):
            differ.add((row.id, int(np.sum(context != row.context_mask))))
    # One piece, a space with a quotation mark, begins before its span and was left out there by hand.
    assert differ == {("user_oriented_task_194", 1)}
