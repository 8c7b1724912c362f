"""Each default has one value: what conf/ says is what the code does without it."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import shiftlens as sl
from shiftlens.analyses.training.training_settings import ShiftSettings
from shiftlens.annotate.endpoint import Endpoint
from shiftlens.annotate.lexical import LexicalAnnotator
from shiftlens.annotate.local import LocalAnnotator
from shiftlens.attribution import AttributionModule, Engine
from shiftlens.attribution.methods import METHODS
from shiftlens.callbacks import Concepts, Faithfulness, ShiftCurves, TokenShift, WordPairs
from shiftlens.errors import ConfigError
from shiftlens.models.pair import RoleSpec
from shiftlens.prompts.encode import encode
from shiftlens.prompts.verifiable import build
from shiftlens.scores.samples import measure
from shiftlens.scores.settings import Settings
from shiftlens.scratch.scratch_options import ModelOptions, PretrainOptions, TextOptions
from shiftlens.support.cache_path import cache_dir
from shiftlens.support.conf_files import choices, model_config, read_choice
from shiftlens.tuning.tune_options import TuneOptions, tune_options
from shiftlens.words import frequent_words


def defaults(code: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of a function, dataclass or constructor that have a default."""
    found = inspect.signature(code).parameters
    values = {name: one.default for name, one in found.items() if one.default is not inspect.Parameter.empty}
    made = [name for name, value in values.items() if repr(value) == "<factory>"]
    return {**values, **{name: getattr(code(), name) for name in made}}


def plain(value: Any) -> Any:
    """A value as YAML would have it: tuples are lists, options are mappings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, tuple | list) else value


def compare(yaml: Mapping[str, Any], code: Callable[..., Any]) -> set[str]:
    """The keys that both have; fails if a value differs."""
    known = defaults(code)
    both = yaml.keys() & known.keys()
    assert {key: yaml[key] for key in both} == {key: plain(known[key]) for key in both}, code
    return both


def composed(config: str, *options: str) -> dict[str, Any]:
    """What Hydra composes; interpolations such as ${seed} stay as they are."""
    with initialize_config_module("shiftlens.conf", version_base="1.3"):
        values = OmegaConf.to_container(compose(config, list(options)))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


# Files of conf/ and the code that has the same keys


def test_saliency_is_what_scores_and_engines_take():
    saliency = composed("analyze")["saliency"]
    run_only = {"check_precision", "costs", "over_methods", "inputs", "foil"}  # a run has them, no function
    run_only |= {
        "method",
        "unit",
    }  # a run compares methods and may take sentences, a call explains by one, by token
    assert saliency["method"][0] == inspect.signature(sl.attribute).parameters["method"].default
    methods = {name: saliency.pop(name) for name in ("ablation", "integrated", "attention", "random")}
    told = [
        compare({key: value for key, value in saliency.items() if key not in run_only}, code)
        for code in (Settings, Engine, AttributionModule, sl.attribute, measure)
    ]
    assert set().union(*told) == set(saliency) - run_only
    for name, settings in methods.items():
        assert compare(settings, METHODS[name]) == set(settings)


def test_data_is_what_the_interface_takes():
    shared = composed("data/shared/prompts")["data"]["shared"]
    assert compare(shared, sl.attribute) == {"max_new_tokens"}
    assert compare(shared, encode) >= {"on_long"}
    assert compare(composed("data/verifiable")["data"], build) == {"split"}


def test_models_are_what_a_role_takes():
    shared = composed("model/shared/pair")["model"]["shared"]
    assert compare(shared, RoleSpec) == {"adapter", "dtype", "device_map", "template"}


@pytest.mark.parametrize(
    ("choice", "name", "code", "given"),
    [
        ("weights", "concepts", Concepts, {"words", "annotator", "cache"}),
        ("weights", "word_pairs", WordPairs, {"words", "cache"}),
        ("faithfulness", "faithfulness", Faithfulness, set()),
        ("token_shift", "token_shift", TokenShift, set()),
    ],
)
def test_callbacks_of_analyze(choice, name, code, given):
    node = composed("analyze", f"callbacks={choice}")["callbacks"][name]
    node.pop("_target_"), node.pop("_convert_", None)
    assert node.pop("seed") == "${seed}"
    assert compare({key: value for key, value in node.items() if key not in given}, code) == set(node) - given


def test_the_callback_of_train():
    node = composed("train")["callbacks"]["shift"]
    assert node.pop("seed") == "${seed}"
    given = {"_target_", "_convert_", *inspect.signature(ShiftCurves).parameters}
    assert compare(node, ShiftSettings) == set(node) - given


@pytest.mark.parametrize(
    ("name", "code", "given"),
    [
        ("openai", Endpoint, {"name", "model"}),
        ("lexical", LexicalAnnotator, {"name"}),
        ("local", LocalAnnotator, {"name", "source", "dtype", "device_map"}),
    ],
)
def test_annotators(name, code, given):
    values = composed("analyze", f"annotator={name}")["annotator"]
    assert compare(values, code) == set(values) - given


def test_words_and_views_of_the_interface():
    words = composed("analyze")["words"]
    assert len(frequent_words().words) == words["size"]
    views = composed("analyze", "callbacks=weights")["callbacks"]
    for node in (views["concepts"], views["word_pairs"]):
        assert node.pop("words") == "${words}"  # the interface takes words, not the group
    assert compare(views["concepts"], sl.concepts) == {"layers", "components", "top_words"}
    pairs = {**views["word_pairs"], "vectors": words["vectors"]}
    assert compare(pairs, sl.word_pairs) == {"layers", "heads", "top", "vectors"}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_tune(method):
    values = composed("train", f"tune={method}")["tune"]
    assert values.pop("start") == "base"
    # A full tuning takes a smaller step than LoRA; tune_options reads it from the file of the method.
    own = {} if method == "lora" else {key: values.pop(key) for key in ("method", "rate")}
    assert compare(values, TuneOptions) == set(values)
    assert tune_options({"method": method}, seed=0) == TuneOptions(**own)


def test_pretrain():
    values = composed("train", "pretrain=default")["pretrain"]
    for name, code in (("text", TextOptions), ("model", ModelOptions)):
        assert compare(values[name], code) == set(values[name])
    assert compare({key: values[key] for key in ("block", "repeats", "held_out")}, PretrainOptions)
    training = plain(PretrainOptions().training)
    assert values["training"] == {key: training[key] for key in values["training"]}
    usual = plain(TuneOptions(method="full"))
    assert {key for key in training if training[key] != usual[key]} <= set(values["training"])


def test_one_cache(monkeypatch, tmp_path):
    for folder in (None, str(tmp_path)):
        if folder is None:
            monkeypatch.delenv("SHIFTLENS_CACHE", raising=False)
        else:
            monkeypatch.setenv("SHIFTLENS_CACHE", folder)
        paths = OmegaConf.create(composed("paths/default"))
        assert Path(paths.paths.cache).expanduser() == cache_dir()


# Files of conf/ read without Hydra


@pytest.mark.parametrize("group", ["annotator", "data", "model", "saliency", "tune", "words"])
def test_a_choice_is_what_hydra_composes(group):
    assert choices(group)
    for name in choices(group):
        assert read_choice(group, name) == composed(f"{group}/{name}")[group]


def test_a_pair_is_read_inside_hydra_and_in_threads():
    pairs: list[dict[str, Any]] = []
    with initialize_config_module("shiftlens.conf", version_base="1.3"):
        before = GlobalHydra.instance().hydra
        threads = [threading.Thread(target=lambda: pairs.append(model_config("vicuna"))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert GlobalHydra.instance().hydra is before
    assert pairs == [composed("model/vicuna")["model"]] * 4


def test_an_unknown_choice_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"model=vicunia: expected one of alpaca, bundled, .*vicuna$"):
        model_config("vicunia")
    with pytest.raises(ConfigError):
        model_config("shared/pair")


def test_files_with_shared_keys_are_no_choices():
    """Hydra offers every file of a folder, also to `-m model=glob(*)`; so they lie in a folder below."""
    for group in ("data", "model"):
        assert choices(f"{group}/shared")
        assert not {*choices(f"{group}/shared")} & {*choices(group)}
