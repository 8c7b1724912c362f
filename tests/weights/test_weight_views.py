"""The callbacks of the weights: kept by content, resumed, compared."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.plain_weights import (
    ROLES,
    SHOWN,
    VOCABULARY,
)
from helpers.weight_callbacks import concepts_view, pairs_view
from lightning.pytorch import LightningModule, Trainer
from transformers import AutoModelForCausalLM, BloomConfig

import shiftlens as sl
from shiftlens.annotate import AnnotationStoppedError, LexicalAnnotator
from shiftlens.callbacks import Concepts
from shiftlens.errors import ConfigError, SourceError
from shiftlens.models.loading import LM
from shiftlens.weights import LayerConcepts
from shiftlens.weights import by_layer as whole
from shiftlens.weights.by_layer import ModelConcepts
from shiftlens.weights.depth import depth_parts
from shiftlens.words import word_tokens


def refuse(*_):
    raise AssertionError("looked again")


@pytest.mark.parametrize(
    ("make", "core", "changed"),
    [
        (concepts_view, "layer_concepts", [{"components": 5}, {"top_words": 8}]),
        (pairs_view, "layer_knowledge", [{"top": 24}, {"heads": [0]}]),
    ],
)
def test_a_model_is_looked_at_once(make, core, changed, lms, words, tmp_path, monkeypatch):
    lm = lms["base"]
    view = make(words, tmp_path)
    assert view.missing(lm.identity)
    view.look(lm)
    assert not view.missing(lm.identity)
    assert len(list(tmp_path.rglob("layer-*.safetensors"))) == 2
    assert not list(tmp_path.rglob(".*"))
    with monkeypatch.context() as patch:
        patch.setattr(whole, core, refuse)
        again = make(words, tmp_path)
        again.on_predict_start(Mock(spec=Trainer, is_global_zero=True), Mock(spec=LightningModule, lm=lm))
        again.look(lm)
        again.load(lm.identity)
    elsewhere = dataclasses.replace(lm.identity, source="another pair", revision="v2")
    assert not make(words, tmp_path).missing(elsewhere)
    assert not make(words, tmp_path, layers=[1]).missing(lm.identity)
    for settings in changed:
        assert make(words, tmp_path, **settings).missing(lm.identity)
    assert make({**words, "size": 40}, tmp_path).missing(lm.identity)
    for field in ("fingerprint", "dtype", "tokenizer"):
        assert make(words, tmp_path).missing(dataclasses.replace(lm.identity, **{field: "other"}))


def test_equal_weights_with_another_tokenizer_are_looked_at_again(pair, lms, words, tmp_path):
    shutil.copytree(pair[0], tmp_path / "copy")
    file = tmp_path / "copy" / "tokenizer.json"
    core = json.loads(file.read_text())
    core["model"]["merges"] = core["model"]["merges"][::2]
    file.write_text(json.dumps(core))
    lm, other = lms["base"], sl.load(str(tmp_path / "copy"))
    assert word_tokens(other.tokenizer, ["please"]) != word_tokens(lm.tokenizer, ["please"])
    assert other.identity.hash == lm.identity.hash
    for make in (concepts_view, pairs_view):
        make(words, tmp_path).look(lm)
        view = make(words, tmp_path)
        assert view.missing(other.identity) and not view.missing(lm.identity)
        assert not make(words, tmp_path).missing(sl.load(str(pair[0])).identity)


def test_other_word_vectors_are_other_pairs_but_the_same_concepts(lms, words, files, tmp_path):
    lm = lms["base"]
    stored = np.load(files / "vectors.npz")
    np.savez(tmp_path / "other.npz", words=stored["words"], vectors=stored["vectors"][:, ::-1] + 0.1)
    other = {**words, "vectors": str(tmp_path / "other.npz")}
    for make, missing in ((concepts_view, False), (pairs_view, True)):
        make(words, tmp_path).look(lm)
        assert make(other, tmp_path).missing(lm.identity) is missing


@pytest.mark.parametrize(("make", "core"), [(concepts_view, "layer_concepts"), (pairs_view, "layer_knowledge")])
def test_a_look_cut_short_goes_on_where_it_stopped(make, core, lms, words, tmp_path, monkeypatch):
    lm, calls = lms["base"], []
    original = getattr(whole, core)

    def dies_at_the_second(*values):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*values)

    monkeypatch.setattr(whole, core, dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        make(words, tmp_path / "cut").look(lm)
    view = make(words, tmp_path / "cut")
    assert view.missing(lm.identity)
    assert [path.name for path in (tmp_path / "cut").rglob("layer-*")] == ["layer-000.safetensors"]
    view.look(lm)
    assert len(calls) == 3
    at_once = make(words, tmp_path / "whole")
    at_once.look(lm)
    for layer in range(2):
        resumed, straight = (v.store(lm.identity).load(layer) for v in (view, at_once))
        assert resumed.keys() == straight.keys()
        for name, array in resumed.items():
            np.testing.assert_array_equal(array, straight[name])


def test_a_failed_write_leaves_no_layer(lms, words, tmp_path, monkeypatch):
    view = concepts_view(words, tmp_path)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        view.look(lms["base"])
    assert not [path for path in (tmp_path / "weights").rglob("*") if path.is_file()]


def test_settings_that_cannot_be_used_are_told_at_once_before_any_model(lms, words, tmp_path):
    identity = lms["base"].identity
    with pytest.raises(ConfigError) as told:
        concepts_view(words, tmp_path, layers=[-1], components=0, shown=-2).missing(identity)
    for part in ("concepts.layers=[-1]", "concepts.components=0", "concepts.shown=-2"):
        assert part in str(told.value)
    with pytest.raises(ConfigError, match="shown=10: expected at most top_words=9"):
        concepts_view(words, tmp_path, shown=10).missing(identity)
    with pytest.raises(ConfigError, match=r"callbacks.word_pairs.heads=\[-3\]"):
        pairs_view(words, tmp_path, heads=[-3]).missing(identity)
    with pytest.raises(ConfigError, match="annotator.alpha=7"):
        Concepts(words, {"name": "lexical", "alpha": 7}, tmp_path).missing(identity)
    with pytest.raises(ConfigError, match=r"callbacks.concepts.layers=\[9\]: the model has layers 0 to 1"):
        concepts_view(words, tmp_path, layers=[9]).look(lms["base"])
    other = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=9, hidden_size=8, n_layer=1, n_head=2))
    with pytest.raises(SourceError, match="bloom model cannot be viewed"):
        pairs_view(words, tmp_path).look(LM(other, lms["base"].tokenizer, "none", identity))


@pytest.fixture(scope="module")
def looked(lms, words, tmp_path_factory):
    """Both views, with both models looked at."""
    cache = tmp_path_factory.mktemp("cache")
    views = concepts_view(words, cache), pairs_view(words, cache)
    for view, lm in itertools.product(views, lms.values()):
        view.look(lm)
    return views


def test_a_model_against_itself_is_not_rotated_and_gains_nothing(looked, lms):
    same = dict.fromkeys(ROLES, lms["base"].identity)
    concepts, pairs = (view.section(same) for view in looked)
    assert concepts.tables["rotation"]["angle"].max() < 1e-6
    assert concepts.tables["rotation_layers"]["equal"].all()
    assert (concepts.tables["rotation"]["matched"] == concepts.tables["rotation"]["component"]).all()
    assert not concepts.tables["rotation"][["n_entered", "n_left"]].any(axis=None)
    for table in ("head_pairs", "head_verbs"):
        assert len(pairs.tables[table])
        assert not pairs.tables[table][["gained", "lost"]].any(axis=None)
    assert (pairs.tables["verb_shares"]["n"] == 0).all() and pairs.tables["verb_shares"]["share"].isna().all()
    for finding in (*concepts.findings, *pairs.findings):
        assert finding.p is None and finding.why_not and finding.verdict == "not testable"


def test_models_that_cannot_be_compared_have_their_own_tables_and_a_reason(looked, lms, monkeypatch):
    concepts, pairs = looked
    one = LayerConcepts(np.eye(2, 7), np.array([0.6, 0.4]), np.array([[0, 1], [2, 3]]), np.ones((2, 2)))
    known = {lms["base"].identity: concepts.load(lms["base"].identity)}
    known[lms["tuned"].identity] = ModelConcepts(tuple(VOCABULARY), 1, {0: one})
    monkeypatch.setattr(concepts, "load", known.get)
    identities = {role: lm.identity for role, lm in lms.items()}
    section = concepts.section(identities)
    assert set(section.tables) == {"concepts", "explained_variance"}
    (finding,) = section.findings
    assert finding.why_not == "base has 2 layers with 6 concepts of width 32, tuned 1 with 2 of width 7"
    deeper = {key: pairs.load(key) for key in identities.values()}
    deeper[lms["tuned"].identity] = dataclasses.replace(deeper[lms["tuned"].identity], depth=3)
    monkeypatch.setattr(pairs, "load", deeper.get)
    section = pairs.section(identities)
    assert set(section.tables) == {"word_pairs"}
    assert section.findings[0].p is None and "tuned 3" in section.findings[0].why_not


def test_an_annotation_that_stopped_is_kept_and_not_compared(looked, lms, monkeypatch):
    concepts = looked[0]
    whole_answer = concepts.annotator.annotate
    asked = []

    def stops_after_four(self, lists):
        asked.extend(lists)
        done = dict(enumerate(whole_answer(lists)[:4]))
        raise AnnotationStoppedError("4 done, budget spent", done)

    monkeypatch.setattr(LexicalAnnotator, "annotate", stops_after_four)
    section = concepts.section({role: lm.identity for role, lm in lms.items()})
    assert len(asked) == len(set(asked))
    assert all(len(concept.words) == SHOWN for concept in asked)
    table = section.tables["concepts"]
    assert (table["note"].iloc[:4] == "").all() and (table["note"].iloc[4:12] == "not asked about").all()
    assert "annotation_shares" not in section.tables
    told = next(f for f in section.findings if f.name == "concepts/interpretable")
    assert told.why_not == "4 done, budget spent"
    assert any(f.name == "concepts/rotation/all" and f.p is not None for f in section.findings)


def test_quarters_are_of_the_models_depth():
    parts = depth_parts([0, 7, 8, 31], 32)
    assert {name: part.nonzero()[0].tolist() for name, part in parts.items()} == {
        "1": [0, 1], "2": [2], "4": [3], "all": [0, 1, 2, 3],
    }  # fmt: skip
