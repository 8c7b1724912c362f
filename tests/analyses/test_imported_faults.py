"""Faults of scores that were computed elsewhere: all listed at once, and nothing of a pickle is run."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.bomb import Bomb
from helpers.imported_scores import QUIET, options, pickles, prompt_table, rows_of, table
from rich.console import Console

from shiftlens.analyses.imported import read_pickles, read_table
from shiftlens.analyses.imported.sentencepiece_text import span_masks
from shiftlens.cli.analyze_options import scores_options
from shiftlens.errors import ConfigError, PromptError, SourceError
from shiftlens.prompts.readers import read_prompts
from shiftlens.prompts.schema import Prompt
from shiftlens.run.scores_run import run_scores


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
    assert set(found.tables["samples"]["id"]) == set(base["id"][1:7]) - {"lima_5"}


def test_one_id_in_two_data_sets_is_two_prompts(tmp_path):
    paths = []
    for role in ("base", "tuned"):
        rows = rows_of(role, 8)
        rows["id"] = [str(i // 2) for i in range(8)]
        paths.append(table(tmp_path / f"{role}.parquet", rows))
    found = run_scores(options(*paths), QUIET)
    assert next(f.n for f in found.findings if f.name == "density/base_vs_tuned" and f.data == "lima") == 4
    assert found.tables["samples"]["id"].nunique() == 8
    assert "lima/0" in set(found.tables["samples"]["id"])


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
            "datasets": None, "levels": 0, "limit": 0, "on_error": "ask", "method": 3,
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
        "data.method",
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
