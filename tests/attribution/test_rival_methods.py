"""Attention weights against the library's own, random importance, and rows of all methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.tiny import FAMILIES, VOCAB, tiny, tokenizer

from shiftlens.attribution import AttributionModule, Engine, Request
from shiftlens.attribution.methods import METHODS, AttentionWeights, RandomOrder, method_from_config
from shiftlens.errors import ConfigError
from shiftlens.models import LM, Identity


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_the_library(family):
    model = tiny(family).requires_grad_(False)
    ids = np.random.default_rng(FAMILIES.index(family)).integers(3, VOCAB, 15).tolist()
    sources, rows = [7, 0, 3, 11], slice(-5, None)  # 11 is a response token
    model.set_attn_implementation("eager")
    read = model(torch.tensor([ids[:-1]]), output_attentions=True)
    layers = [each[0].mean(0).numpy() for each in read.attentions]  # [positions, positions]
    rollout = np.eye(14)
    for layer in layers:
        rollout = (layer / 2 + np.eye(14) / 2) @ rollout
    for how, want in (("mean", np.mean(layers, 0)), ("rollout", rollout)):
        found = AttentionWeights(how).explain(model, ids, sources, 5, Engine())
        # The library takes its softmax in float32.
        assert found.values.numpy() == pytest.approx(want[rows][:, sources].T, abs=1e-6)
    log_p = torch.log_softmax(read.logits[0, -5:], -1).gather(1, torch.tensor(ids[-5:])[:, None])[:, 0]
    assert (found.reading.log_probability - log_p).abs().max() < 1e-5


def test_attention_of_a_response_of_no_tokens_and_of_units():
    model, ids = tiny("llama"), list(range(5, 17))
    assert AttentionWeights().explain(model, ids, [1, 2], 0, Engine()).values.shape == (2, 0)
    tokens = AttentionWeights().explain(model, ids, range(12 - 1), 4, Engine()).values
    assert tokens.sum(0).tolist() == pytest.approx([1] * 4)
    units = AttentionWeights().explain_units(model, ids, [[0, 4], [2]], 4, Engine()).values
    assert torch.allclose(units, torch.stack([tokens[0] + tokens[4], tokens[2]]))
    with pytest.raises(ConfigError, match=r"saliency\.attention\.how=max: expected one of mean, rollout"):
        AttentionWeights("max")


def test_random_importance_depends_on_ids_and_seed_alone():
    model, other, ids = tiny("llama"), tiny("gpt2"), list(range(5, 17))
    found = RandomOrder().explain(model, ids, [1, 4, 6], 5, Engine())
    assert found.values.shape == (3, 5)
    assert found.values.min() >= 0 and found.values.max() < 1
    assert torch.equal(found.values, RandomOrder().explain(other, ids, [1, 4, 6], 5, Engine()).values)
    assert torch.equal(found.values[1:], RandomOrder().explain(model, ids, [4, 6], 5, Engine()).values)
    want = Engine().explain(model, ids, [1], 5).reading
    assert torch.equal(found.reading.log_probability, want.log_probability)
    for changed in (
        RandomOrder(1).explain(model, ids, [1, 4, 6], 5, Engine()),
        RandomOrder().explain(model, [*ids[:-1], 3], [1, 4, 6], 5, Engine()),
    ):
        assert not torch.isclose(found.values, changed.values).any()
    with pytest.raises(ConfigError, match=r"saliency\.random\.seed=-1: expected a whole number"):
        RandomOrder(-1)


@pytest.mark.parametrize("name", METHODS)
def test_rows_of_every_method(name):
    """One row serves both targets where a method says so, and importance of p is that of log p times p."""
    lm, method = LM(tiny("gpt2"), tokenizer(), "none", Identity("m", "f", "", "float64")), method_from_config(name)
    rows = {}
    for target in ("probability", "log_probability", "logit_difference"):
        module = AttributionModule(lm, engine=Engine(target=target))
        request = Request("k", (5, 6, 7, 8), (1, 3), (9, 10, 11), 3, (), True, method)
        with torch.no_grad():
            (rows[target],) = module.predict_step([request])
        assert rows[target].values.shape == (2 + 3, 3)
        assert (rows[target].method, rows[target].form) == (name, method.form)
        assert (rows[target].residual is None) == (name != "integrated")
    same = np.array_equal(rows["probability"].values, rows["log_probability"].values)
    assert same == (method.shares or method.form == "loss")
    p = rows["probability"]
    assert p.importance() == pytest.approx(p.relative() * p.probability)
