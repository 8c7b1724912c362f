"""The sanity check: layers with random weights for a while, and attributions by them."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.in_process import analyze
from helpers.naive import naive
from helpers.tiny import FAMILIES, tiny, tokenizer
from torch import nn

from shiftlens.analyses.faithfulness.randomised import Randomised, random_layers
from shiftlens.attribution import AttributionModule, Engine, Request
from shiftlens.attribution.methods import Gradient
from shiftlens.errors import ShiftLensError
from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM

IDS, SOURCES, RESPONSE = [1, 17, 4, 9, 33, 8, 21, 5], [1, 2, 4], 3


def layers_of(model):
    return next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == 2)


def bits(model):
    return {name: value.detach().clone() for name, value in model.state_dict(keep_vars=True).items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_only_upper_layers_change_and_every_bit_comes_back(family, share):
    model = tiny(family)
    before, tensors = bits(model), [p.data_ptr() for p in model.parameters()]
    upper = list(layers_of(model))[2 - math.ceil(2 * share) :]
    changed = {id(p) for layer in upper for p in layer.parameters()}
    with random_layers(model, share, seed=0):
        for name, value in model.named_parameters():
            assert torch.equal(value, before[name]) == (id(value) not in changed), name
    assert [p.data_ptr() for p in model.parameters()] == tensors
    after = bits(model)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_weights_come_back_after_an_error():
    model = tiny("llama")
    before = bits(model)
    with pytest.raises(RuntimeError, match="out of luck"), random_layers(model, 1.0, 0):
        raise RuntimeError("out of luck")
    assert all(torch.equal(value, before[name]) for name, value in bits(model).items())


def by_hand(model, share, seed):
    """A copy of the model whose upper layers are redrawn with the mean and deviation of each tensor."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    layers = list(layers_of(other))
    with torch.no_grad():
        for layer in layers[::-1][: math.ceil(share * len(layers))]:
            for weight in layer.parameters():
                wide = weight.float()
                noise = torch.randn(weight.shape, generator=generator)
                weight.copy_(wide.mean() + wide.std(correction=0) * noise)
    return other


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_it_is_the_attribution_of_a_model_with_random_layers(share):
    model = tiny("llama")
    found = Randomised(Gradient(), share, 3).explain(model, IDS, SOURCES, RESPONSE, Engine("reverse"))
    expected, log_p = naive(by_hand(model, share, 3), torch.tensor(IDS), torch.tensor(SOURCES), RESPONSE)
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.reading.log_probability, log_p, rtol=1e-9, atol=0)
    own, _ = naive(model, torch.tensor(IDS), torch.tensor(SOURCES), RESPONSE)
    usual = Gradient().explain(model, IDS, SOURCES, RESPONSE, Engine("reverse"))
    torch.testing.assert_close(usual.values, own, rtol=1e-9, atol=1e-12)


def test_draws_have_the_mean_and_deviation_of_each_tensor():
    model = tiny("llama")
    weight = layers_of(model)[1].mlp.up_proj.weight
    mean, std = weight.mean().item(), weight.std().item()
    with random_layers(model, 0.5, 0):
        assert weight.mean().item() == pytest.approx(mean, abs=4 * std / math.sqrt(weight.numel()))
        assert weight.std().item() == pytest.approx(std, rel=0.1)


def test_quantized_layers_are_refused():
    model = tiny("llama")
    layer = layers_of(model)[1].mlp.up_proj
    layer.weight = nn.Parameter(torch.zeros(56, 32, dtype=torch.int8), requires_grad=False)
    before = bits(model)
    with pytest.raises(ShiftLensError, match="sanity=0"), random_layers(model, 1.0, 0):
        pass
    assert all(torch.equal(value, before[name]) for name, value in bits(model).items())


def test_rows_of_random_layers_are_not_those_of_the_model(pair, tmp_path):
    """Whether the check runs or not, the model's own rows are the same; and its numbers are rank correlations."""
    words = ["callbacks=faithfulness", "callbacks.faithfulness.n=2"]
    analysis, _ = analyze(tmp_path, pair, *words, "callbacks.faithfulness.sanity=2")
    (tmp_path / "without").mkdir()
    without, _ = analyze(tmp_path / "without", pair, *words, "callbacks.faithfulness.sanity=0")
    for name in ("faithfulness", "faithfulness_curves"):
        assert analysis.tables[name].equals(without.tables[name])
    sanity = analysis.tables["faithfulness_sanity"]
    assert without.tables["faithfulness_sanity"].empty
    assert set(sanity["at"]) == {"0.25", "0.5", "1"}
    assert set(sanity["method"]) == {"gradient"}  # exact removal is the yardstick, random importance has no model
    assert sanity["value"].between(-1, 1).all()
    assert sanity.groupby(["role", "at"])["id"].nunique().eq(2).all()


def test_a_row_says_which_method_and_form_it_has():
    lm = LM(tiny("llama"), tokenizer(), "none", Identity("m", "f", "", "float64"))
    method = Randomised(Gradient(), 1.0)
    request = Request("k", tuple(IDS[:-RESPONSE]), tuple(SOURCES), tuple(IDS[-RESPONSE:]), 5, (), method=method)
    (row,) = AttributionModule(lm).predict_step([request])
    assert (row.method, row.form) == ("randomised", "ratio")
    (usual,) = AttributionModule(lm).predict_step([replace(request, method=Gradient())])
    assert not np.array_equal(row.values, usual.values)
