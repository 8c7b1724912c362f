"""Hostile values of every numeric key of every command: one clear line each, and no traceback."""

from __future__ import annotations

import copy
import math

import pytest
from helpers.command import run_here
from hydra import compose, initialize_config_module

from shiftlens.cli.analyze_command import NEEDS_MODEL, resolved
from shiftlens.cli.analyze_options import options_from_config, scores_options
from shiftlens.cli.make_callbacks import make_callbacks
from shiftlens.cli.train_options import tuning_from_config
from shiftlens.errors import ConfigError

HOSTILE = [
    True,
    3.0,
    "3",
    math.nan,
    math.inf,
    -math.inf,
    10**30,
    10**400,
    -1,
    -0.5,
    "abc",
    "",
    "a\nb",
    [1.5],
    {},
    None,
]
OPTIONAL = {
    "saliency.chunk", "data.limit", "data.max_tokens", "held_out.limit", "held_out.max_tokens", "words.size",
    "annotator.temperature", "annotator.max_requests", "annotator.max_tokens",
    "callbacks.concepts.layers", "callbacks.word_pairs.layers", "callbacks.word_pairs.heads",
    "callbacks.shift.every", "callbacks.shift.probes", "callbacks.shift.layers",
    "pretrain.text.max_chars",
    *(f"{group}.{key}" for group in ("tune", "pretrain.training") for key in ("steps", "clip", "max_tokens", "patience")),
}  # fmt: skip
REAL = {
    "saliency.p", "saliency.memory_budget", "annotator.timeout", "annotator.wait", "annotator.temperature",
    *(f"{group}.{key}" for group in ("tune", "pretrain.training") for key in ("rate", "alpha", "weight_decay", "clip")),
}  # fmt: skip
OFTEN = {"callbacks.shift.follow", "callbacks.shift.density", "callbacks.shift.rotation", "callbacks.shift.pairs"}
# Copies of other groups, arguments of a library, and what holds no number.
OTHER = (
    "callbacks.concepts.words", "callbacks.concepts.annotator", "callbacks.word_pairs.words",
    "callbacks.shift.words", "callbacks.shift.saliency", "callbacks.shift.held_out", "trainer.strategy",
)  # fmt: skip
TRAIN = ["callbacks.shift.folder=out", "callbacks.shift.rotation=off", "callbacks.shift.pairs=off"]
CONFIGURATIONS = {
    "analyze": ("analyze", []),
    "weights": ("analyze", ["callbacks=weights"]),
    "evidence": ("analyze", ["callbacks=evidence", "data=jsonl", "data.path=none", "trainer=ddp"]),
    "openai": (
        "analyze",
        ["callbacks=weights", "annotator=openai", "annotator.model=m", "annotator.key_env=null"],
    ),
    "local": ("analyze", ["callbacks=weights", "annotator=local"]),
    "scores": ("analyze", ["data=scores", "data.base=.", "data.tuned=.", "data.prompts=pyproject.toml"]),
    "train": ("train", TRAIN),
    "full": ("train", [*TRAIN, "tune=full", "trainer=fsdp", "data=jsonl", "data.path=none"]),
    "scratch": ("train", ["experiment=from_scratch"]),
}


@pytest.fixture(autouse=True)
def in_a_folder_with_a_file(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)


def configuration(name):
    command, words = CONFIGURATIONS[name]
    with initialize_config_module("shiftlens.conf", version_base="1.3"):
        config = resolved(compose(command, ["logger=none", *words]))
    return {key: value for key, value in config.items() if key not in NEEDS_MODEL} if name == "scores" else config


def told(name, config):
    """The lines of the error that the command ends with; none where it would begin to work."""
    command = CONFIGURATIONS[name][0]
    try:
        if name == "scores":
            scores_options(config)
        else:
            callbacks, problems = make_callbacks(config["callbacks"])
            (options_from_config if command == "analyze" else tuning_from_config)(config, problems)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def numeric_keys(config, prefix=""):
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name.startswith(OTHER):
            continue
        if isinstance(value, dict):
            yield from numeric_keys(value, f"{name}.")
        elif isinstance(value, int | float) or name in OPTIONAL | OFTEN | {"trainer.devices"}:
            yield name


def change(config, key, value):
    changed = copy.deepcopy(config)
    *groups, last = key.split(".")
    at = changed
    for group in groups:
        at = at[group]
    at[last] = value
    return changed


def value_of(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def fits(name, key, value, usual):
    if isinstance(usual, bool):
        return value is True
    return (
        (value is None and (key in OPTIONAL or (name, key) == ("openai", "annotator.seed")))
        or (value == 3.0 and isinstance(value, float) and key in REAL)
        or (value == -1 and isinstance(value, int) and key == "trainer.devices")
    )


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_each_hostile_value_of_each_numeric_key_is_one_line(name):
    config = configuration(name)
    keys = list(numeric_keys(config))
    assert len(keys) >= 7
    assert told(name, config) == []
    wrong = []
    for key in keys:
        for value in HOSTILE:
            lines = told(name, change(config, key, value))
            if fits(name, key, value, value_of(config, key)):
                wrong += [(key, value, lines)] if lines else []
            elif len(lines) != 1 or not lines[0].startswith(f"{key}=") or ": expected " not in lines[0]:
                wrong.append((key, value, lines))
    assert wrong == []


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_all_faults_of_a_configuration_are_one_error(name):
    config = configuration(name)
    keys = list(numeric_keys(config))
    for key in keys:
        config = change(config, key, "abc")
    lines = told(name, config)
    assert sorted(line.split("=")[0] for line in lines) == sorted(keys)
    assert all("abc: expected" in line.replace("'", "") for line in lines)


@pytest.mark.parametrize(
    ("script", "words", "keys"),
    [
        (
            "analyze.py",
            ["callbacks=evidence", "callbacks.faithfulness.seed=abc", "saliency.memory_budget=inf", "seed=-1",
             "saliency.chunk=99999999999999999999", "saliency.p=nan", "trainer.devices=abc"],
            ["saliency.p", "saliency.chunk", "saliency.memory_budget", "seed", "trainer.devices",
             "callbacks.faithfulness.seed", "callbacks.token_shift.seed", "callbacks.parting.seed"],
        ),
        (
            "analyze.py",
            ["callbacks=weights", "callbacks.concepts.seed=abc", "callbacks.word_pairs.top=1.5", "words.size=0",
             "annotator.alpha=1"],
            ["words.size", "annotator.alpha", "callbacks.concepts.seed", "callbacks.word_pairs.top"],
        ),
        (
            "train.py",
            ["data.max_new_tokens=abc", "held_out.limit=0", "saliency.chunk=abc", "saliency.include_response=abc",
             "callbacks.shift.every=0", "tune.rate=inf", "tune.start=middle"],
            ["tune.rate", "tune.start", "data.max_new_tokens", "held_out.limit", "saliency.include_response",
             "saliency.chunk", "callbacks.shift.every"],
        ),
    ],
)  # fmt: skip
def test_the_commands_tell_every_fault_once_and_without_a_traceback(script, words, keys, tmp_path):
    done = run_here(*words, "logger=none", cwd=tmp_path, script=script)
    assert done.returncode == 1
    lines = done.stderr.strip().removeprefix("Error: ").splitlines()
    assert [line.split("=")[0] for line in lines] == keys
    assert all(": expected " in line for line in lines)


def test_an_error_of_a_callback_that_is_no_setting_is_told_as_it_is(tmp_path):
    shift = configuration("train")["callbacks"]["shift"] | {
        "rotation": "each",
        "words": {"vocabulary": "none.tsv"},
    }
    _, problems = make_callbacks({"shift": shift})
    assert len(problems) == 1 and problems[0].startswith("words.vocabulary: none.tsv cannot be read")
