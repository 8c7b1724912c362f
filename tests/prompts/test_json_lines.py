"""Prompts from JSON lines: what is read, and that every fault is found at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.prompt_files import faults, jsonl, parts, read

import shiftlens.prompts.verifiable as verifiable
from shiftlens.errors import ConfigError, PromptError
from shiftlens.prompts.readers import read_prompts
from shiftlens.prompts.schema import Prompt

pytestmark = pytest.mark.quick


def test_jsonl_reads_every_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiable, "check_problems", lambda check: None, raising=False)
    path = jsonl(
        tmp_path / "p.jsonl",
        "\ufeff" + json.dumps({"text": "Shout: hello", "context": [[7, 12]]}),
        "",
        {"id": "b", "prompt": "A B\u2028C", "instruction": [[4, 5], [0, 1]], "context_spans": "B", "rating": 2,
         "reference": "r", "response": "", "check": {"name": "x"}, "dataset": "other"},
    )  # fmt: skip
    first, second = read(path).prompts
    assert first == Prompt("row-1", "Shout: hello", ((0, 6),), ((7, 12),), "mine")
    assert second == Prompt("b", "A B\u2028C", ((0, 1), (4, 5)), ((2, 3),), "other", "r", "", 2, {"name": "x"})


def test_instruction_left_out_is_all_but_the_context(tmp_path: Path) -> None:
    text = "Read this: the sea. Now sum it up.\n"
    path = jsonl(tmp_path / "p.jsonl", {"text": text, "context": ["the sea."]}, {"text": text})
    parted, whole = read(path).prompts
    assert parts(text, parted.instruction) == ["Read this:", "Now sum it up."]
    assert parts(text, whole.instruction) == [text.strip()]


def test_instruction_may_overlap_context(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"text": "abcdef", "instruction": [[0, 4]], "context": [[2, 6]]})
    assert (read(path).prompts[0].instruction, read(path).prompts[0].context) == (((0, 4),), ((2, 6),))


def test_spans_may_touch(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"text": "abcdef", "instruction": [[2, 4], [0, 2]]})
    assert read(path).prompts[0].instruction == ((0, 2), (2, 4))


def test_only_newlines_end_a_json_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", '{"text": "a\u2028b\x85c"}', '{"text": "d"}')
    assert [p.text for p in read(path).prompts] == ["a\u2028b\x85c", "d"]


def test_five_faults_are_five_problems_in_one_error(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "p.jsonl",
        {"id": "a", "text": "one two", "instruction": [[0, 3]]},
        "{not json",
        {"id": "a", "text": "one two"},
        {"text": "one two", "instruction": [[0, 99]], "rating": "good"},
        {"text": ""},
    )
    with pytest.raises(PromptError) as caught:
        read(path)
    found = [(p.row, p.field) for p in caught.value.problems]
    assert found == [(2, ""), (3, "id"), (4, "instruction"), (4, "rating"), (5, "text")]
    assert all(f"row {row}" in str(caught.value) for row in (2, 3, 4, 5))
    assert "5 problems" in str(caught.value)


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ([1], ""),
        ({}, "text"),
        ({"text": 5}, "text"),
        ({"text": "  "}, "text"),
        ({"text": "a\ud800"}, "text"),
        ({"text": "abc", "instruction": [0, 2]}, "instruction"),
        ({"text": "abc", "instruction": [[0]]}, "instruction"),
        ({"text": "abc", "instruction": [[0, 1.5]]}, "instruction"),
        ({"text": "abc", "instruction": [[False, True]]}, "instruction"),
        ({"text": "abc", "instruction": [[2, 2]]}, "instruction"),
        ({"text": "abc", "instruction": [[2, 1]]}, "instruction"),
        ({"text": "abc", "instruction": [[-1, 1]]}, "instruction"),
        ({"text": "abc", "instruction": [[0, 4]]}, "instruction"),
        ({"text": "abc", "instruction": [[0, 2], [1, 3]]}, "instruction"),
        ({"text": "abc", "instruction": []}, "instruction"),
        ({"text": "abc", "instruction": 3}, "instruction"),
        ({"text": "abc", "instruction": "x"}, "instruction"),
        ({"text": "aba", "instruction": ["a"]}, "instruction"),
        ({"text": "abc", "instruction": [[0, 1]], "instruction_spans": [[0, 1]]}, "instruction_spans"),
        ({"prompt": "abc", "context_spans": [[0, 9]]}, "context_spans"),
        ({"text": "abc", "context": "abc"}, "context"),
        ({"text": "abc", "rating": 2.0}, "rating"),
        ({"text": "abc", "rating": True}, "rating"),
        ({"text": "abc", "response": 1}, "response"),
        ({"text": "abc", "reference": ["x"]}, "reference"),
        ({"text": "abc", "id": 1}, "id"),
        ({"text": "abc", "dataset": ""}, "dataset"),
        ({"text": "abc", "check": "caps"}, "check"),
        ({"text": "abc", "instrution": [[0, 1]]}, "instrution"),
    ],
)
def test_each_fault_alone(tmp_path: Path, record: Any, field: str) -> None:
    assert faults(jsonl(tmp_path / "p.jsonl", {"text": "fine"}, record)) == [(2, field)]


def test_unknown_field_suggests_and_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"did you mean 'instruction'\? Known: id, text, instruction"):
        read(jsonl(tmp_path / "p.jsonl", {"text": "a", "instrution": "a"}))
    with pytest.raises(PromptError, match=r"not a known field\. Known: id"):
        read(jsonl(tmp_path / "p.jsonl", {"text": "a", "zzz": "a"}))


def test_malformed_check_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiable, "check_problems", lambda c: f"no {c['name']}", raising=False)
    with pytest.raises(PromptError, match="row 1, check: no caps"):
        read(jsonl(tmp_path / "p.jsonl", {"text": "a", "check": {"name": "caps"}}))


def test_skip_leaves_faulty_rows_out_and_lists_them(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"text": ""}, {"text": "good"}, {"text": "x", "id": 3, "rating": "y"})
    found = read(path, on_error="skip")
    assert [p.id for p in found.prompts] == ["row-2"]
    assert [(p.row, p.field) for p in found.skipped] == [(1, "text"), (3, "id"), (3, "rating")]
    assert found.where == str(path)


def test_nothing_left_or_nothing_there(tmp_path: Path) -> None:
    assert faults(jsonl(tmp_path / "p.jsonl", {"text": ""}, "["), on_error="skip") == [(1, "text"), (2, "")]
    for suffix in ("jsonl", "tsv"):
        with pytest.raises(PromptError, match="empty"):
            read(jsonl(tmp_path / f"e.{suffix}", "", ""))


def test_limit_counts_after_the_whole_file_was_checked(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", *[{"text": f"t{i}"} for i in range(5)])
    assert [p.text for p in read(path, limit=2).prompts] == ["t0", "t1"]
    jsonl(path, {"text": "a"}, {"text": "b"}, {"text": ""})
    assert faults(path, limit=1) == [(3, "text")]
    for limit in (0, -1, 1.0, True, "2"):
        with pytest.raises(ConfigError, match="limit"):
            read(path, limit=limit)


def test_settings_that_cannot_be_used(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"text": "a"})
    with pytest.raises(ConfigError, match="data.on_error=ignore: expected one of raise, skip"):
        read(path, on_error="ignore")
    with pytest.raises(ConfigError, match="verifiable, jsonl, parquet, tsv, hub"):
        read(path, reader="csv")
    for missing in (None, "", "???"):
        with pytest.raises(ConfigError, match=r"data\.path=FILE"):
            read_prompts({"reader": "jsonl", "path": missing})
    for bad in (tmp_path, tmp_path / "no.jsonl"):
        with pytest.raises(ConfigError, match=r"data\.path=FILE"):
            read_prompts({"reader": "jsonl", "path": str(bad)})


def test_wrong_encoding_is_one_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "caf\xe9"}\n{"text": "\xe9"}')
    with pytest.raises(PromptError, match="byte 0xe9 is not UTF-8") as caught:
        read(path)
    assert [p.row for p in caught.value.problems] == [2]
