"""Token shift against ranks by sorting, on a tiny pair and on tables made by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.in_process import RECORDS, analyze
from helpers.tiny import save_pair, tokenizer
from scipy import stats

import shiftlens as sl
from shiftlens.analyses.token_shift.compute import (
    instruction_share,
    kinds,
    shift_profile,
    shift_rows,
)
from shiftlens.analyses.token_shift.findings import shift_findings


@pytest.fixture(scope="module")
def ran(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shift")
    return folder, *analyze(folder, pair, "callbacks=token_shift")


def test_ranks_are_those_of_sorted_probabilities_under_the_base_model(ran, pair):
    _, analysis, _ = ran
    table = analysis.tables["token_shift"]
    base, tuned = (sl.load(str(folder)) for folder in pair)
    for record in RECORDS:
        rows = table[table["id"] == record["id"]].sort_values("position")
        own = sl.attribute(tuned, record["text"], max_new_tokens=6)
        ids = torch.tensor(own.input_ids)
        start = len(ids) - len(own.response_tokens)
        ranks = []
        for place in range(start, len(ids)):
            order = base.model(ids[None, :place]).logits[0, -1].argsort(descending=True).tolist()
            ranks.append(order.index(int(ids[place])) + 1)
        assert rows["base_rank"].tolist() == ranks
        assert rows["token"].tolist() == own.response_tokens
        expected = ["unshifted" if r == 1 else "marginal" if r <= 3 else "shifted" for r in ranks]
        assert rows["kind"].tolist() == expected
        # The share of positive importance on the instruction, token by token.
        end = record["instruction"][0][1]
        ends = np.cumsum([len(token) for token in own.prompt_tokens])
        mask = ends - [len(token) for token in own.prompt_tokens] < end
        for column, share in zip(own.importance.T, rows["instruction_share"], strict=True):
            positive = [max(float(value), 0.0) for value in column]
            total = sum(value for value, inside in zip(positive, mask, strict=True) if inside)
            assert share == pytest.approx(total / sum(positive), rel=1e-4)


def test_the_base_only_reads_and_only_once(ran, pair):
    folder, first, told = ran
    assert told.count("6 samples to explain") == 1  # the base: three of its own, three of the tuned model's
    again, told = analyze(folder, pair, "callbacks=token_shift")
    assert "to explain" not in told
    pd.testing.assert_frame_equal(again.tables["token_shift"], first.tables["token_shift"])


def test_given_responses_are_left_out_and_counted(pair, tmp_path):
    records = [{**RECORDS[0], "response": "the words"}, *RECORDS[1:]]
    analysis, _ = analyze(tmp_path, pair, "callbacks=token_shift", records=records)
    assert set(analysis.tables["token_shift"]["id"]) == {"two", "three"}
    notes = [f.note for f in analysis.findings if f.view == "tokens"]
    assert len(notes) == 2
    assert all("left out: 1 with a given response" in note for note in notes)


def test_nothing_but_given_responses_is_not_testable(pair, tmp_path):
    analysis, _ = analyze(
        tmp_path, pair, "callbacks=token_shift", "data.responses=given",
        records=[{**record, "response": "words"} for record in RECORDS],
    )  # fmt: skip
    found = [f for f in analysis.findings if f.view == "tokens"]
    assert [f.testable for f in found] == [False, False]
    assert len(analysis.tables["token_shift"]) == 0


def test_responses_that_the_base_cuts_otherwise_are_left_out_and_counted(tmp_path):
    base, tuned = save_pair(tmp_path)
    words = tokenizer()
    state = json.loads(words.backend_tokenizer.to_str())
    special = {token["content"] for token in state["added_tokens"]}
    names = sorted(set(state["model"]["vocab"]) - special)
    ids = [state["model"]["vocab"][name] for name in names]
    # Every id means another token, and text is read byte by byte.
    state["model"] |= {"merges": [], "vocab": state["model"]["vocab"] | dict(zip(names, ids[::-1], strict=True))}
    words._tokenizer = type(words.backend_tokenizer).from_str(json.dumps(state))
    words.save_pretrained(base)
    analysis, _ = analyze(tmp_path, (base, tuned), "callbacks=token_shift", "data.max_new_tokens=20")
    kept = analysis.tables["token_shift"]["id"].nunique()
    note = next(f.note for f in analysis.findings if f.view == "tokens")
    assert kept < 3
    assert f"left out: {3 - kept} cut into other tokens by the base's tokenizer" in note


def test_kinds_and_shares():
    assert kinds(np.array([1, 2, 3, 4, 900])) == ["unshifted", "marginal", "marginal", "shifted", "shifted"]
    # Rows behind the prompt are earlier response tokens; they take no part.
    share = instruction_share(np.array([[2.0, -1], [6.0, 3], [50.0, 50]]), np.array([True, False]))
    assert share.tolist() == [0.25, 0.0]


@pytest.fixture
def table():
    """Three prompts whose tokens are known one by one."""
    ranks = {"a": [9, 1, 2, 1], "b": [5, 7, 1, 1, 1, 6], "c": [1, 8]}
    shares = {"a": [0.9, 0.2, 0.5, 0.4], "b": [0.5, 0.7, 0.3, 0.1, np.nan, 0.3], "c": [0.6, 0.7]}
    frames = [
        shift_rows(name, "d", list("xxxxxx")[: len(ranks[name])], np.array(ranks[name]), np.array(shares[name]))
        for name in ranks
    ]
    return pd.concat(frames, ignore_index=True)


def test_findings_take_prompts_as_the_unit(table):
    halves, drive = shift_findings(table, {"d": ["left out: 1 whatever"]})
    first, second = np.array([0.5, 2 / 3, 0.0]), np.array([0.0, 1 / 3, 1.0])
    assert halves.effect == pytest.approx((first - second).mean())
    assert halves.p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert "shifted 41.7%" in halves.note
    shifted, unshifted = np.array([0.9, 0.5, 0.7]), np.array([0.3, 0.2, 0.6])
    assert drive.groups["shifted"].mean == pytest.approx(shifted.mean())
    assert drive.groups["unshifted"].mean == pytest.approx(unshifted.mean())
    assert drive.p == pytest.approx(stats.ttest_rel(shifted, unshifted, alternative="greater").pvalue)
    assert "left out: 1 whatever" in drive.note


def test_the_profile_counts_every_token_once_per_scale(table):
    profile = shift_profile(table)
    assert profile.groupby("scale")["n"].sum().to_dict() == {"relative": 12, "absolute": 12}
    assert profile[["unshifted", "marginal", "shifted"]].sum(axis=1).to_numpy() == pytest.approx(1.0)
    absolute = profile[profile["scale"] == "absolute"].set_index("bin")
    assert absolute.loc[0, "n"] == 11
    assert absolute.loc[0, "shifted"] == pytest.approx(4 / 11)
    assert absolute.loc[1, "shifted"] == 1.0
    relative = profile[profile["scale"] == "relative"].set_index("bin")
    assert relative.loc[1, "n"] == 1  # (0 + 0.5) / 4 of prompt a
    assert relative.loc[2, "n"] == 2  # (1 + 0.5) / 6 of b, (0 + 0.5) / 2 of c
