"""Deletion and insertion curves against whole forward passes with zeroed embeddings, and their areas against numpy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.in_process import RECORDS, analyze
from helpers.naive import naive
from transformers import AutoModelForCausalLM

from shiftlens.analyses.faithfulness.removal_curves import WHOLE, curve_metrics, kept_count, ordered
from shiftlens.callbacks import Faithfulness

SHARES = (0.1, 0.5)


@pytest.fixture(scope="module")
def ran(pair, tmp_path_factory):
    """A run with faithfulness; what its callback got, and the folder."""
    seen, section = {}, Faithfulness.section

    def spy(self, roles, rows):
        seen.update(roles=roles, rows=rows)
        return section(self, roles, rows)

    folder = tmp_path_factory.mktemp("curves")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Faithfulness, "section", spy)
        words = ["callbacks=faithfulness", "callbacks.faithfulness.n=2", "callbacks.faithfulness.tokens=2"]
        analysis, _ = analyze(folder, pair, *words, f"callbacks.faithfulness.shares={list(SHARES)}")
    return analysis, seen["roles"], seen["rows"], folder


def losses_by_hand(model, ids, response, removed):
    """log p of every response token by one pass each, embeddings of `removed` set to zero."""
    with torch.no_grad():
        embeddings = model.get_input_embeddings()(torch.tensor(ids)).clone()
        embeddings[removed] = 0
        found = []
        for end in range(len(ids) - response, len(ids)):
            logits = model(inputs_embeds=embeddings[None, :end], use_cache=False).logits[0, -1]
            found.append(torch.log_softmax(logits, -1)[ids[end]].item())
    return np.array(found)


@pytest.mark.parametrize("role", ["base", "tuned"])
def test_every_point_is_a_whole_pass_without_the_tokens(ran, pair, role):
    analysis, roles, rows, _ = ran
    model = AutoModelForCausalLM.from_pretrained(pair[role == "tuned"], dtype=torch.float32).eval()
    points = analysis.tables["faithfulness_curves"]
    points = points[(points["role"] == role) & (points["method"] == "gradient")]
    assert points["id"].nunique() == 2
    for request, encoded in zip(roles[role].requests, roles[role].encoded, strict=True):
        own = points[points["id"] == encoded.prompt.id]
        if own.empty:
            continue
        row = rows[role][request.key]
        ids, sources, M = row.input_ids.tolist(), list(request.prompt_index), len(row.log_probability)
        importance = naive(model, torch.tensor(ids), torch.tensor(sources), M)[0].numpy()
        full = losses_by_hand(model, ids, M, [])
        assert own["position"].nunique() == 3
        for point in own.itertuples():
            columns = range(M) if point.position == WHOLE else [point.position]
            total = sum(importance[:, m] for m in columns)
            order = sorted(range(len(sources)), key=lambda n: -total[n])
            count = math.ceil(len(sources) * point.share)
            gone = order[:count] if point.curve == "deletion" else order[count:]
            after = losses_by_hand(model, ids, M, [sources[n] for n in gone])
            assert point.removed == len(gone)
            assert point.change == pytest.approx((after - full)[list(columns)].mean(), abs=2e-5)
            assert point.p == pytest.approx(np.exp(after)[list(columns)].mean(), rel=1e-4)


def test_all_methods_remove_equally_many_tokens(ran):
    points = ran[0].tables["faithfulness_curves"]
    counts = points.groupby(["role", "id", "curve", "share"])["removed"].nunique()
    assert set(points["method"]) == {"gradient", "ablation", "random"}
    assert (counts == 1).all()


def test_ties_go_to_the_earlier_token_and_shares_are_rounded_up():
    assert ordered(np.array([0.0, 1.0, -3.0, 1.0, 0.0])).tolist() == [1, 3, 0, 4, 2]
    assert [kept_count(20, share) for share in (0.05, 0.1, 0.2, 0.5, 1.0)] == [1, 2, 4, 10, 20]
    assert [kept_count(21, share) for share in (0.05, 0.1, 0.2, 0.5, 1.0)] == [2, 3, 5, 11, 21]
    assert [kept_count(100, share / 100) for share in range(101)] == list(range(101))


def test_areas_and_losses_by_hand():
    rng, shares = np.random.default_rng(0), [0.0, 0.2, 0.5, 1.0]
    change, p = -rng.random((3, 2, 4)), rng.random((3, 2, 4))  # [position, curve, share]
    rows = [
        ("base", "d", "a", "mine", position, curve, share, change[i, j, k], p[i, j, k])
        for i, position in enumerate((WHOLE, 0, 4))
        for j, curve in enumerate(("deletion", "insertion"))
        for k, share in enumerate(shares)
    ]
    names = ["role", "dataset", "id", "method", "position", "curve", "share", "change", "p"]
    found = curve_metrics(pd.DataFrame(rows, columns=names).sample(frac=1, random_state=0))
    found = found.set_index(["scope", "metric", "at", "measure"])["value"].to_dict()
    for measure, values in (("change", change), ("p", p)):
        for scope, some in (("response", values[:1]), ("token", values[1:])):
            area = sum((some[:, :, k] + some[:, :, k + 1]) / 2 * (shares[k + 1] - shares[k]) for k in range(3))
            assert found[scope, "deletion", "", measure] == pytest.approx(area[:, 0].mean())
            assert found[scope, "insertion", "", measure] == pytest.approx(area[:, 1].mean())
            without, kept = some[:, 0, :1] - some[:, 0], some[:, 1, 3:] - some[:, 1]
            for metric, lost in (("comprehensiveness", without), ("sufficiency", kept)):
                assert found[scope, metric, "0.2", measure] == pytest.approx(lost[:, 1].mean())
                assert found[scope, metric, "mean", measure] == pytest.approx(lost[:, 1:3].mean())


def test_logit_differences_have_curves_of_their_own_and_no_probability(pair, tmp_path):
    words = ["callbacks=faithfulness", "callbacks.faithfulness.n=2", "saliency.target=logit_difference"]
    analysis, _ = analyze(tmp_path, pair, *words, records=RECORDS[:2])
    assert analysis.tables["faithfulness_curves"]["p"].isna().all()
    assert set(analysis.tables["faithfulness_methods"]["measure"]) == {"change", ""}


def test_a_killed_run_goes_on_where_it_stopped(pair, tmp_path, monkeypatch):
    from shiftlens.attribution.methods import Ablation

    words, calls, explain = ["callbacks=faithfulness", "callbacks.faithfulness.n=3"], [], Ablation.explain_units

    def fails(self, *args):
        calls.extend(args for unit in args[2][:1] if len(unit) > 1)  # the sets of a prompt, not single tokens
        if len(calls) == 3:
            raise KeyboardInterrupt
        return explain(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Ablation, "explain_units", fails)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            analyze(tmp_path, pair, *words)
    resumed, told = analyze(tmp_path, pair, *words)
    assert "tuned: 1 samples to explain, 2 in the ledger" in told
    whole, told = analyze(tmp_path, pair, *words)
    assert "to explain" not in told
    for name in ("faithfulness", "faithfulness_curves", "faithfulness_sanity", "faithfulness_methods"):
        pd.testing.assert_frame_equal(resumed.tables[name], whole.tables[name])
