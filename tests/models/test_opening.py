"""One model of a pair opened by name: its template, and the ids that end its responses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.tiny import tiny, tokenizer

import shiftlens as sl
from shiftlens.annotate import Concept, LocalAnnotator
from shiftlens.errors import SourceError
from shiftlens.models import ROLES, find_pair, open_role, pair_from_config
from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM

pytestmark = pytest.mark.quick

TEXT = "Write the words in order"


@pytest.fixture
def folders(pair: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Copies of the tiny pair whose base has no chat template."""
    base, tuned = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in pair)
    (base / "chat_template.jinja").unlink()
    return base, tuned


def pair_of(folders, cache, **settings):
    return pair_from_config({"base": str(folders[0]), "tuned": str(folders[1]), **settings}, cache)


@pytest.mark.parametrize("role", ROLES)
def test_both_models_get_the_template_of_the_tuned_model(folders, tmp_path, role):
    pair = pair_of(folders, tmp_path)
    lm = open_role(pair, role)
    assert lm.template == f"jinja:{tokenizer().chat_template}"
    assert Path(lm.identity.source) == folders[ROLES.index(role)]
    assert open_role(pair, role, find_pair(pair)).template == lm.template
    assert open_role(pair_of(folders, tmp_path, template="Q: {prompt}"), role).template == "Q: {prompt}"


def test_a_model_opened_alone_gets_its_own_template(folders, tmp_path):
    pair = pair_of(folders, tmp_path)
    assert open_role(pair, "base", find_pair(pair, ["base"])).template == "none"
    chat = pair_of(folders, tmp_path, template="chat")
    with pytest.raises(SourceError, match="has no chat template"):
        open_role(chat, "base", find_pair(chat, ["base"]))
    shutil.rmtree(folders[1])
    assert open_role(pair, "base", find_pair(pair, ["base"])).template == "none"
    with pytest.raises(SourceError, match=r"Pair 'pair' cannot be loaded.\n  tuned: "):
        open_role(pair, "base")


def test_responses_end_where_the_folder_says_though_the_folder_is_gone(folders, tmp_path):
    longest = sl.attribute(sl.load(str(folders[1])), TEXT, max_new_tokens=6)
    ids = longest.input_ids[-len(longest.response_tokens) :].tolist()
    assert len(ids) == 6
    stop = ids[3]
    settings = folders[1] / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token_id": [stop, 2]}))
    lm = sl.load(str(folders[1]))
    assert lm.stops == tuple(sorted({stop, 2, lm.tokenizer.eos_token_id}))
    shutil.rmtree(folders[1])
    assert len(sl.attribute(lm, TEXT, max_new_tokens=6).response_tokens) == ids.index(stop)


def test_the_local_annotator_ends_responses_there_too(folders, tmp_path, monkeypatch):
    used: list[tuple[int, ...]] = []

    def greedy(model, prompts, max_new_tokens, stops):
        used.append(tuple(stops))
        return [([], True) for _ in prompts]

    monkeypatch.setattr("shiftlens.annotate.local.greedy", greedy)
    lm = sl.load(str(folders[1]))
    lm.stops = (7, 9)
    LocalAnnotator(lm, tmp_path / "answers").annotate([Concept(("paris", "rome"))])
    assert used == [(7, 9)]


def test_a_model_put_together_by_hand_stops_at_the_end_token_of_its_tokenizer():
    model, words = tiny("llama"), tokenizer()
    identity = Identity("tiny", "0", "", "float64")
    assert LM(model, words, "none", identity).stops == (words.eos_token_id,)
    assert LM(model, words, "none", identity, (5,)).stops == (5,)
    words.eos_token = None
    assert LM(model, words, "none", identity).stops == ()
