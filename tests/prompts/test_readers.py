"""Prompts from Parquet, the paper's tables, data sets of the hub and the bundled set, and how each is configured."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.prompt_files import faults, jsonl, parts, read

import shiftlens.prompts.verifiable as verifiable
from shiftlens.errors import ConfigError, Problem, PromptError, SourceError
from shiftlens.prompts import hub
from shiftlens.prompts.readers import READERS, PromptSet, read_prompts
from shiftlens.prompts.schema import Prompt
from shiftlens.support.conf_files import CONF, choices, read_choice

pytestmark = pytest.mark.quick


def test_parquet_like_the_published_scores(tmp_path: Path) -> None:
    spans = pa.list_(pa.list_(pa.int32()))
    table = pa.table(
        {
            "id": ["a", "b"],
            "dataset": ["lima", "self_instruct"],
            "model": ["m", "m"],
            "prompt": ["Sum up: the sea", "Go on"],
            "reference": ["It is wet.", ""],
            "instruction_spans": pa.array([[[0, 7], [4, 6]], [[0, 5]]], spans),  # one inside another: joined
            "context_spans": pa.array([[[8, 15]], []], spans),
            "rating": pa.array([4, None], pa.int8()),
            "score": pa.array([[1, 2], []], pa.list_(pa.uint8())),
        }
    )
    path = tmp_path / "p.parquet"
    pq.write_table(table, path)
    assert read(path).prompts == [
        Prompt("a", "Sum up: the sea", ((0, 7),), ((8, 15),), "lima", "It is wet.", None, 4),
        Prompt("b", "Go on", ((0, 5),), (), "self_instruct", "", None, None),
    ]


def test_parquet_ratings_with_gaps_are_floats_and_still_integers(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "rating": [3.0, float("nan")]}), path)
    assert [p.rating for p in read(path).prompts] == [3, None]
    pq.write_table(pa.table({"text": ["a", ""], "rating": [2.5, 1.0]}), path)
    assert faults(path) == [(1, "rating"), (2, "text")]


def test_parquet_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    path.write_text("hello")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        read(path)
    pq.write_table(pa.table({"question": ["a"]}), path)
    with pytest.raises(ConfigError, match="its columns are question"):
        read(path)


HEADER = "ID\tPrompt\tResponse\tInstruct&Context"


def test_tsv_of_the_paper(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "p.tsv",
        HEADER + "\tRating\tnote\r",
        't1\t"Say ""hi"" twice:/n/thi and hi"\tHI/nHI\t"Say ""hi"" twice:|||hi |||hi&&&and"\t4\tx\r',
        "t2\tOpen https://a.io/news now\t\tOpen |||now\t\t",
    )
    one, two = read(path).prompts
    assert one.text == 'Say "hi" twice:\n\thi and hi'
    assert (one.id, one.reference, one.rating, one.dataset) == ("t1", "HI\nHI", 4, "mine")
    # "hi " with its space is found before "and"; the next "hi" takes the next free place, the last one.
    assert one.instruction == ((0, 15), (17, 20), (24, 26))
    assert parts(one.text, one.context) == ["and"]
    assert two.text == "Open https://a.io\news now"  # the format cannot tell a literal /n from a newline
    assert parts(two.text, two.instruction) == ["Open ", "now"]
    assert (two.reference, two.rating) == (None, None)


def test_tsv_phrase_inside_another_is_joined(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.tsv", HEADER, "a\tWrite a long poem\t\tWrite a long poem|||long")
    assert read(path).prompts[0].instruction == ((0, 17),)


def test_tsv_context_avoids_the_instruction(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.tsv", HEADER, "a\tSpell cat: cat\t\tSpell cat:&&&cat")
    assert read(path).prompts[0].context == ((11, 14),)


def test_tsv_faults(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "p.tsv",
        HEADER + "\trating",
        "a\tdo it\t\tdo it",
        "b\tdo it\t\tdo that|||it",
        "c\tdo it\t\tdo it|||do it",
        "d\tdo it",
        "e\tdo it\t\tdo&&&it&&&it",
        "f\tdo it\t\t\tgood",
        "a\tdo it\t\tdo it",
    )
    tag = "Instruct&Context"
    expected = [(3, tag), (4, tag), (5, ""), (6, tag), (7, tag), (7, "rating"), (8, "id")]
    assert faults(path) == expected
    assert len(read(path, on_error="skip").prompts) == 1
    with pytest.raises(PromptError, match="lacks"):
        read(jsonl(path, "ID\tText", "a\tb"), on_error="skip")


def fake_hub(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]) -> list[Any]:
    calls: list[Any] = []

    def load_dataset(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        calls.append((args, kwargs))
        return rows

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return calls


def conf(name: str, **changes: Any) -> dict[str, Any]:
    return read_choice("data", name) | changes


def test_self_instruct_is_fed_as_in_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"id": "u0", "instruction": "Fix it.", "instances": [{"input": "a\nb", "output": "c"}]},
        {"id": "u1", "instruction": "Sing.", "instances": {"input": [""], "output": ["la"]}},
        {"id": "u2", "task": "Sing."},
    ]
    calls = fake_hub(monkeypatch, rows)
    found = read_prompts(conf("self_instruct", on_error="skip"))
    one, two = found.prompts
    assert one.text == "Fix it.\n\nInput: a\nb\n\nOutput:"
    assert (parts(one.text, one.instruction), parts(one.text, one.context)) == (
        ["Fix it.", "Input:"],
        ["a\nb"],
    )
    assert two == Prompt("u1", "Sing.", ((0, 5),), (), "self_instruct", "la")
    assert "'instruction'" not in str(found.skipped[0]).split("it has")[1]
    assert calls == [(("HuggingFaceH4/self-instruct-eval", None), {"split": "test", "revision": None})]


def test_lima_mt_bench_ifeval(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_hub(monkeypatch, [{"conversations": ["Q?"], "source": "s"}, {"conversations": ["Q", "A", "B"]}])
    prompts = read_prompts(conf("lima", revision="abc")).prompts
    assert [(p.id, p.text, p.reference, p.dataset) for p in prompts] == [
        ("row-1", "Q?", None, "lima"),
        ("row-2", "Q", "A", "lima"),
    ]
    # The repository has a loading script: only its file may be touched.
    files = {"test": "hf://datasets/GAIR/lima@abc/test.jsonl"}
    assert calls == [(("json",), {"data_files": files, "split": "test"})]

    fake_hub(monkeypatch, [{"prompt_id": 7, "prompt": ["one", "two"], "reference": []}])
    assert read_prompts(conf("mt_bench")).prompts == [Prompt("7", "one", ((0, 3),), (), "mt_bench")]
    fake_hub(monkeypatch, [{"key": 1000, "prompt": "Sing.", "instruction_id_list": ["x:y"], "kwargs": [{}]}])
    assert read_prompts(conf("ifeval")).prompts == [Prompt("1000", "Sing.", ((0, 5),), (), "ifeval")]


def test_hub_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'shiftlens\[hub\]'"):
        read_prompts(conf("lima"))


def test_hub_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, [{}])
    with pytest.raises(ConfigError, match="self_instruct, lima, mt_bench, ifeval"):
        read_prompts(conf("lima", columns="alpaca"))
    with pytest.raises(ConfigError, match=r"data\.repo=OWNER/NAME"):
        read_prompts(conf("lima", repo=None))


@pytest.mark.parametrize("name", ["lima", "ifeval"])  # one of each way of loading
def test_hub_offline_says_what_to_do(name: str, tmp_path: Path) -> None:
    code = (
        "from shiftlens.support.conf_files import read_choice\n"
        "from shiftlens.errors import SourceError\n"
        "from shiftlens.prompts.readers import read_prompts\n"
        f"data = read_choice('data', {name!r})\n"
        "try:\n    read_prompts(data)\nexcept SourceError as error:\n    print(error)\n"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    repo = {"lima": "GAIR/lima", "ifeval": "google/IFEval"}[name]
    assert f"Cannot load the data set {repo}" in done.stdout, done.stderr
    for line in ("tried: ", "data=verifiable", "data=jsonl data.path=FILE"):
        assert line in done.stdout


def test_hub_error_of_any_kind_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no route\nlong trace")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(SourceError, match=r"got: RuntimeError: no route\n") as caught:
        read_prompts(conf("mt_bench"))
    assert "long trace" not in str(caught.value)


def test_verifiable_is_built_for_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {
        "test": [Prompt(str(i), "a", ((0, 1),)) for i in range(3)],
        "train": [Prompt("t", "a", ((0, 1),))],
    }
    monkeypatch.setattr(verifiable, "build", lambda split: made[split], raising=False)
    assert read_prompts(conf("verifiable", limit=2)) == PromptSet(made["test"][:2], (), "verifiable (test)")
    assert read_prompts(conf("verifiable", split="train")).prompts == made["train"]


def test_bundled_checks_are_the_judge_of_checks(tmp_path: Path) -> None:
    prompt = read_prompts(conf("verifiable", limit=1)).prompts[0]
    assert prompt.check is not None
    good = {"text": prompt.text, "check": prompt.check}
    assert read(jsonl(tmp_path / "p.jsonl", good)).prompts[0].check == prompt.check
    bad = {"text": prompt.text, "check": {"name": "no such check"}}
    assert faults(jsonl(tmp_path / "p.jsonl", good, bad)) == [(2, "check")]


def test_every_data_config_is_complete_and_explained() -> None:
    names = {*choices("data")} - {"scores"}  # responses that exist, no prompts to answer
    shared = "".join((CONF / "data" / "shared" / f"{name}.yaml").read_text() for name in choices("data/shared"))
    assert names == {"verifiable", "jsonl", "parquet", "tsv", "self_instruct", "lima", "mt_bench", "ifeval"}
    for name in names:
        data, text = conf(name), shared + (CONF / "data" / f"{name}.yaml").read_text()
        assert data["name"] == name
        assert data["reader"] in READERS
        assert (data["limit"], data["on_error"]) == (30 if name == "verifiable" else None, "raise")
        assert data["max_new_tokens"] == (32 if name == "verifiable" else 300)
        if data["reader"] == "hub":
            assert data["columns"] in hub.COLUMNS
        for key in data:
            assert re.search(rf"^#.*\n{key}: ", text, re.MULTILINE), f"{name}: {key} has no comment"
        if data.get("path") == "???":
            with pytest.raises(ConfigError, match=r"data\.path=FILE"):
                read_prompts(data)


def test_problem_counts_rows_from_one_in_hub_data(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, [{"key": 1, "prompt": "a"}, {"key": 2, "prompt": " "}])
    with pytest.raises(PromptError) as caught:
        read_prompts(conf("ifeval"))
    assert caught.value.problems == (Problem(2, "text", "is empty"),)
