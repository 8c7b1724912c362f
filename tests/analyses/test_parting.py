"""The token at which two greedy responses part ways, against whole forwards of both models."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.in_process import RECORDS, analyze
from helpers.tiny import save_pair, tokenizer

import shiftlens as sl
from shiftlens.analyses.parting.compute import parting_at
from shiftlens.callbacks import Parting
from shiftlens.errors import ConfigError
from shiftlens.report.page import render_report

ROLES = ("base", "tuned")


@pytest.fixture(scope="module")
def ran(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parting")
    return folder, *analyze(folder, pair, "callbacks=parting")


def logits_after(model, ids, embeddings=None):
    if embeddings is None:
        return model(ids[None]).logits[0, -1].double()
    return model(inputs_embeds=embeddings[None]).logits[0, -1].double()


def test_contrasts_and_pushes_are_those_of_whole_forwards(ran, pair):
    table = ran[1].tables["parting"].set_index(["method", "id"])
    regions = ran[1].tables["parting_regions"].set_index(["method", "role", "id", "region"])["net"].sort_index()
    models = {role: sl.load(str(folder)) for role, folder in zip(ROLES, pair, strict=True)}
    parted = 0
    for record in RECORDS:
        own = {role: sl.attribute(models[role], record["text"], max_new_tokens=6) for role in ROLES}
        start = len(own["base"].input_ids) - len(own["base"].response_tokens)
        base, tuned = (own[role].input_ids[start:].tolist() for role in ROLES)
        place = next((i for i in range(min(len(base), len(tuned))) if base[i] != tuned[i]), None)
        if place is None:
            assert ("gradient", record["id"]) not in table.index
            continue
        parted += 1
        row, ids = table.loc["gradient", record["id"]], torch.tensor(own["tuned"].input_ids[: start + place])
        assert row["position"] == place
        assert row["tuned_token"] == own["tuned"].response_tokens[place]
        for role in ROLES:
            model = models[role].model
            with torch.no_grad():
                logits = logits_after(model, ids)
            contrast = float(logits[tuned[place]] - logits[base[place]])
            assert row[f"contrast_{role}"] == pytest.approx(contrast, abs=1e-4)
            assert (contrast >= 0) == (role == "tuned")  # greedy: each model prefers its own token
            table_of = model.get_input_embeddings()(ids).detach()
            removed = 0.0
            with torch.no_grad():
                for n in own["tuned"].prompt_index.tolist():
                    without = table_of.clone()
                    without[n] = 0.0
                    left = logits_after(model, ids, without)
                    removed += contrast - float(left[tuned[place]] - left[base[place]])
            assert regions["ablation", role, record["id"]].sum() == pytest.approx(removed, abs=1e-3)
    assert parted > 0
    assert "Where the responses part ways" in render_report(ran[1])


def test_what_pushes_is_named_in_order(ran):
    texts = [text for text in ran[1].tables["parting"]["pushing_tuned"] if text]
    assert texts
    for text in texts:
        pushes = [float(part.rsplit(" ", 1)[1]) for part in text.split(" · ")]
        assert pushes == sorted(pushes, reverse=True) and all(push >= 0 for push in pushes) and len(pushes) <= 3


def test_findings_are_of_the_tuned_model_and_the_same_again_is_in_the_ledger(ran, pair):
    findings = [finding for finding in ran[1].findings if finding.view == "parting"]
    assert findings and {finding.role for finding in findings} == {"tuned"}
    assert "parting/instruction_vs_chance" in {finding.name for finding in findings}
    again, told = analyze(ran[0], pair, "callbacks=parting")
    assert "to explain" not in told
    assert again.tables["parting"].equals(ran[1].tables["parting"])


def test_identical_and_given_responses_are_left_out_and_counted(pair, tmp_path):
    records = [{**RECORDS[0], "response": "the words"}, *RECORDS[1:]]
    analysis, _ = analyze(tmp_path, (pair[0], pair[0]), "callbacks=parting", records=records)
    assert not len(analysis.tables["parting"])
    section = next(section for section in analysis.sections if section.title == "Where the responses part ways")
    assert "2 with identical responses" in section.html and "1 with a given response" in section.html


def test_responses_that_the_tokenizers_cut_differently_are_left_out(tmp_path):
    base, tuned = save_pair(tmp_path)
    words = tokenizer()
    state = json.loads(words.backend_tokenizer.to_str())
    special = {token["content"] for token in state["added_tokens"]}
    names = sorted(set(state["model"]["vocab"]) - special)
    ids = [state["model"]["vocab"][name] for name in names]
    state["model"] |= {"merges": [], "vocab": state["model"]["vocab"] | dict(zip(names, ids[::-1], strict=True))}
    words._tokenizer = type(words.backend_tokenizer).from_str(json.dumps(state))
    words.save_pretrained(base)
    analysis, _ = analyze(tmp_path, (base, tuned), "callbacks=parting", "data.responses=both")
    section = next(section for section in analysis.sections if section.title == "Where the responses part ways")
    assert "that the two tokenizers cut differently" in section.html
    shift = next(section for section in analysis.sections if "shift" in section.tables)
    assert "left out: the two models read other tokens" in shift.html
    assert not any(finding.testable for finding in shift.findings)


def test_first_difference():
    assert parting_at([1, 2], [1, 2]) is None and parting_at([], [1]) is None and parting_at([3], [1]) == 0
    assert parting_at([1, 2, 3], [1, 2, 4]) == 2


def test_a_seed_that_cannot_be_used_names_its_key():
    with pytest.raises(ConfigError, match=r"callbacks\.parting\.seed=-1"):
        Parting(seed=-1)
