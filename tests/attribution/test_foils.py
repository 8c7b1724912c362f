"""Logit differences to a given token: every mode and exact removal against autograd and whole forwards."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.in_process import RECORDS, analyze
from helpers.tiny import VOCAB, tiny, tokenizer

import shiftlens as sl
from shiftlens.attribution import Engine
from shiftlens.attribution.foils import first_token
from shiftlens.attribution.methods import Ablation, Gradient, Integrated
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.attribution.request import Request
from shiftlens.attribution.row import Row, answers, from_record, to_record
from shiftlens.errors import ConfigError
from shiftlens.run import pipeline
from shiftlens.support.setting_rules import Text

RESPONSE, SOURCES = 4, [1, 2, 5]


def difference(model, ids, place, foil, embeddings=None):
    """Logit of the token at a place minus that of its foil, from one whole forward."""
    fed = {"input_ids": ids[None, :place]} if embeddings is None else {"inputs_embeds": embeddings[None, :place]}
    logits = model(**fed, use_cache=False).logits[0, -1]
    return logits[ids[place]] - logits[foil]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def text(request):
    """A model, ids, and a foil for each response token; the second is the response token itself."""
    model = tiny(request.param).requires_grad_(False)
    ids = torch.from_numpy(np.random.default_rng(5).integers(3, VOCAB, 12))
    start = len(ids) - RESPONSE
    foils = [7, int(ids[start + 1]), 8, 9]
    assert all(foil != int(own) for i, (foil, own) in enumerate(zip(foils, ids[start:], strict=True)) if i != 1)
    with plain_attention(model):
        logits = model(ids[None, : start + 1], use_cache=False).logits[0, -1].tolist()
    runner_up = max((k for k in range(VOCAB) if k != foils[1]), key=lambda k: logits[k])
    return SimpleNamespace(model=model, ids=ids, start=start, foils=foils, meant=[7, runner_up, 8, 9])


@pytest.mark.parametrize("mode", ["reverse", "forward", "mixed", "naive"])
def test_every_mode_differentiates_the_difference_to_the_foil(text, mode):
    table, want = text.model.get_input_embeddings()(text.ids).detach(), []
    with plain_attention(text.model), torch.enable_grad():
        for i, foil in enumerate(text.meant):
            leaf = table.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(
                difference(text.model, text.ids, text.start + i, foil, leaf), leaf
            )  # [total, width]
            want.append((gradient * table).sum(-1)[SOURCES])
    for chunk in (1, 3):
        engine = Engine(mode, chunk, "logit_difference", foils=tuple(text.foils))
        found = Gradient().explain(text.model, text.ids.tolist(), SOURCES, RESPONSE, engine)
        torch.testing.assert_close(found.values, torch.stack(want, 1), rtol=1e-9, atol=1e-9)


def test_removal_holds_the_foil(text):
    engine = Engine(target="logit_difference", foils=tuple(text.foils))
    found = Ablation().explain(text.model, text.ids.tolist(), SOURCES, RESPONSE, engine)
    table = text.model.get_input_embeddings()(text.ids).detach()
    with torch.no_grad():
        for i, foil in enumerate(text.meant):
            whole = difference(text.model, text.ids, text.start + i, foil)
            for row, source in zip(found.values, SOURCES, strict=True):
                without = table.clone()
                without[source] = 0.0
                lost = whole - difference(text.model, text.ids, text.start + i, foil, without)
                assert float(row[i]) == pytest.approx(float(lost), abs=1e-9)


def test_integrated_gradients_hold_the_foil(text):
    engine = Engine("naive", target="logit_difference", foils=tuple(text.foils))
    found = Integrated(2).explain(text.model, text.ids.tolist(), SOURCES, RESPONSE, engine)
    table = text.model.get_input_embeddings()(text.ids).detach()
    without = table.clone()
    without[SOURCES] = 0.0
    divided = found.values.sum(0) - found.residual  # what the method divides up, whatever its error
    with torch.no_grad():
        for i, foil in enumerate(text.meant):
            whole, start = (difference(text.model, text.ids, text.start + i, foil, e) for e in (table, without))
            assert float(divided[i]) == pytest.approx(float(whole - start), abs=1e-9)


def test_one_foil_stands_for_all_and_other_targets_have_none(text):
    one, each = (
        Engine(target="logit_difference", foils=foils).explain(text.model, text.ids.tolist(), [1], 4).values
        for foils in ((7,), (7, 7, 7, 7))
    )
    assert torch.equal(one, each)
    with pytest.raises(ValueError, match="foils are for the target logit_difference, not probability"):
        Engine(foils=(7,))


def test_the_models_choices_are_kept(text):
    reading = Engine().explain(text.model, text.ids.tolist(), [1], RESPONSE).reading
    logits = text.model(text.ids[None]).logits[0, text.start - 1 : -1]
    assert reading.choice.tolist() == [max(range(VOCAB), key=row.__getitem__) for row in logits.tolist()]


@pytest.fixture(scope="module")
def models(pair):
    return {role: sl.load(str(folder)) for role, folder in zip(("base", "tuned"), pair, strict=True)}


@pytest.mark.parametrize("responses", ["own", "tuned"])
def test_the_other_models_choice_in_a_run(pair, models, tmp_path, responses, monkeypatch):
    """Rows of a run against the definition: at each response token, the other model's greedy token there."""
    kept = {}
    gather = pipeline._gather
    monkeypatch.setattr(
        pipeline,
        "_gather",
        lambda asked, *rest: kept.update(asked=asked, rows=gather(asked, *rest)) or kept["rows"],
    )
    words = ("saliency.target=logit_difference", "saliency.foil=other_model", f"data.responses={responses}")
    analysis, _ = analyze(tmp_path, pair, *words, "saliency.method=gradient")
    assert analysis.provenance["attribution"]["foil"] == "other_model"
    for role, other in (("base", "tuned"), ("tuned", "base")):
        requests = kept["asked"].explained(kept["rows"], role, role if responses == "own" else "tuned")
        assert len(requests) == len(RECORDS)
        for request in requests:
            ids = torch.tensor([*request.input_ids, *request.response_ids])
            with torch.no_grad():
                choices = models[other].model(ids[None]).logits[0].argmax(-1)
            row = kept["rows"][role][request.key]
            assert row.target == "logit_difference"
            want = [int(choices[place - 1]) for place in range(len(request.input_ids), len(ids))]
            assert list(request.foils) == want
            engine = Engine("naive", target="logit_difference", foils=request.foils)
            found = engine.explain(models[role].model, ids.tolist(), request.prompt_index, len(want)).values
            np.testing.assert_allclose(row.values, found, rtol=1e-3, atol=1e-4)


def test_the_first_token_of_a_text(pair, tmp_path):
    text = "words"
    analysis, _ = analyze(
        tmp_path, pair, "saliency.target=logit_difference", f"saliency.foil={text}", "saliency.method=gradient"
    )
    assert analysis.provenance["attribution"]["foil"] == text
    assert first_token(tokenizer(), text) == tokenizer()(text)["input_ids"][0]
    assert first_token(tokenizer(), "") is None


def test_faults_name_the_key(pair, tmp_path, monkeypatch):
    with pytest.raises(ConfigError) as error:
        analyze(tmp_path, pair, "saliency.foil=3", "saliency.L=0")
    assert "saliency.foil=3: expected a text" in str(error.value) and "saliency.L=0" in str(error.value)
    with pytest.raises(ConfigError, match="saliency.foil=other_model: needs saliency.target=logit_difference"):
        analyze(tmp_path, pair, "saliency.foil=other_model")
    monkeypatch.setattr("shiftlens.run.prepare.first_token", lambda *_: None)
    with pytest.raises(ConfigError) as error:
        analyze(tmp_path, pair, "saliency.target=logit_difference", "saliency.foil=no")
    assert str(error.value).splitlines() == [
        f"saliency.foil=no: no token of the {role} model" for role in ("base", "tuned")
    ]
    assert Text().expected(3) == "a text"


def test_a_row_that_only_reads_needs_the_models_choices():
    """Rows of earlier versions have none, and are read again."""
    asked = Request("k", (4, 5), (), (6,), 1, ())
    numbers = np.zeros(1, np.float32)
    row = Row("k", np.array([4, 5, 6], np.int32), np.zeros(0, np.int32), np.zeros((0, 1), np.float32), numbers,
              np.ones(1, np.int32), "x", True, "forward", choice=np.array([9], np.int32))  # fmt: skip
    record = to_record(row)
    assert answers(from_record(record), asked)
    assert from_record(record).choice.tolist() == [9]
    assert not answers(from_record({**record, "choice": None}), asked)
    assert from_record({**record, "choice": [9, 9]}) is None
