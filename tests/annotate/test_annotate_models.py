"""Annotation by language models: how answers are read, a local model, configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.model_answers import CAPITALS, GOOD, KEY, concepts
from omegaconf import OmegaConf

import shiftlens as sl
from shiftlens.annotate import (
    Endpoint,
    LocalAnnotator,
    annotator_from_config,
)
from shiftlens.annotate.annotator_prompt import read_answer
from shiftlens.errors import ConfigError

CONF = Path(sl.__file__).parent / "conf" / "annotator"


# --- answers of language models -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"description": "colours", "level": "semantics", "task": "writing"}',
            ("colours", "semantics", "writing"),
        ),
        ('```json\n{"description":"a\\nb","level":"SYNTAX","task":null}\n```', ("a b", "syntax", "none")),
        ('{"description": "Cannot tell.", "level": null, "task": "none"}', (None, None, None)),
        ('{"description": null, "level": "syntax", "task": "math"}', (None, None, None)),
        ('{x} then {"description": "verbs", "level": "syntax", "task": "none"}', ("verbs", "syntax", "none")),
    ],
)
def test_answers_are_read(text: str, expected: tuple[str | None, str | None, str | None]) -> None:
    found = read_answer(text)
    assert found is not None and (found.description, found.level, found.task) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "They are verbs.",
        '{"description": "verbs", "level": "syntax"',
        '{"level": "syntax", "task": "none"}',
        '{"description": 3, "level": "syntax", "task": "none"}',
        '{"description": "verbs", "level": "pragmatics", "task": "none"}',
        '{"description": "verbs", "level": "syntax", "task": "cooking"}',
        '[{"a": ' * 3,
    ],
)
def test_answers_that_cannot_be_read_are_told_apart_from_cannot_tell(text: str) -> None:
    assert read_answer(text) is None


# --- the local annotator --------------------------------------------------------------------------------------


def test_a_local_model_answers_through_the_same_reader(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = sl.load(str(pair[1]), cache=str(tmp_path / "models"))
    annotator = LocalAnnotator(lm, tmp_path, max_new_tokens=4, batch_size=2)
    silent = annotator.annotate(concepts(3))  # random weights say nothing readable
    assert [(a.told, a.note) for a in silent] == [(False, "no readable answer")] * 3
    assert len(list(tmp_path.glob("*.json"))) == 3

    asked: list[str] = []

    def answer(model: Any, prompts: Any, max_new_tokens: int, stops: Any) -> list[tuple[list[int], bool]]:
        asked.extend(lm.tokenizer.decode(prompt) for prompt in prompts)
        return [(lm.tokenizer(GOOD)["input_ids"], True) for _ in prompts]

    monkeypatch.setattr("shiftlens.annotate.local.greedy", answer)
    assert annotator.annotate(concepts(5))[3:] == [CAPITALS] * 2
    assert len(asked) == 2 and asked[0].startswith("<|user|>") and "Words: paris3, rome" in asked[0]


# --- configuration --------------------------------------------------------------------------------------------


def from_config(config: dict[str, Any], cache: Path) -> Any:
    return annotator_from_config(config, ["a", "b"], np.zeros((2, 2)), lambda word: set(), cache)


def shipped(name: str) -> dict[str, Any]:
    return dict(OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml")))  # type: ignore[arg-type]


def test_shipped_configurations_make_annotators(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert from_config(shipped("lexical"), tmp_path).name == "lexical"
    assert from_config({**shipped("local"), "source": str(pair[0])}, tmp_path).name == "local"
    pytest.importorskip("openai", reason="needs the openai package")
    assert from_config({**shipped("openai"), "model": "m"}, tmp_path).name == "openai"


def test_shipped_configurations_say_what_the_code_has_as_default() -> None:
    values = shipped("openai")
    assert values.pop("name") == "openai"
    assert Endpoint(**values) == Endpoint(model="")
    assert shipped("lexical") == {"name": "lexical", "alpha": 0.05, "seed": 0}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"name": "gpt"}, ["annotator.name=gpt: expected one of lexical, openai, local"]),
        ({"name": "lexical", "alpha": 2, "speed": 1}, ["annotator.alpha=2", "annotator.speed: unknown"]),
        (
            {"name": "local", "source": "", "batch_size": 0},
            ["annotator.source is missing", "annotator.batch_size=0"],
        ),
        (
            {
                "name": "openai",
                "base_url": "https://me:pw@host/v1",
                "key_env": "NO_SUCH_VARIABLE",
                "tries": "many",
            },
            ["annotator.model is missing", "holds a password", "NO_SUCH_VARIABLE", "annotator.tries=many"],
        ),
    ],
)
def test_all_faults_of_a_configuration_are_named_at_once(
    config: dict[str, Any], said: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        from_config(config, tmp_path)
    assert all(text in str(error.value) for text in said)
    assert "pw" not in str(error.value)
