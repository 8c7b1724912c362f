"""Mixtures of experts keep every mode when they are loaded: the same numbers as the naive loop."""

from __future__ import annotations

import pytest
import torch
from helpers.more_families import MIXTURES, mixture
from helpers.naive import naive
from helpers.tiny import VOCAB, in_float64, tokenizer

import shiftlens as sl
from shiftlens.attribution import Engine
from shiftlens.attribution.modes.plain_attention import plain_attention

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module", params=MIXTURES)
def loaded(request, tmp_path_factory):
    """A model that `load` reads from a folder."""
    folder = tmp_path_factory.mktemp(request.param)
    mixture(request.param).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return sl.load(str(folder), cache=str(folder / "cache")).model


@pytest.fixture(scope="module")
def task(loaded):
    """Ids, sources and the attributions of the naive loop in float64."""
    ids, sources, response = torch.arange(3, 23) * 5 % VOCAB, torch.arange(2, 9), 6
    model = in_float64(loaded)
    with plain_attention(model):
        want, _ = naive(model, ids, sources, response)
    return model, ids.tolist(), sources.tolist(), response, want


@pytest.mark.parametrize("mode", ["reverse", "forward", "mixed", "auto"])
def test_every_mode_gives_the_numbers_of_the_naive_loop(task, mode, caplog):
    model, ids, sources, response, want = task
    found = Engine(mode, 3).explain(model, ids, sources, response)
    assert found.mode == ("mixed" if mode == "auto" else mode)
    assert ((found.values - want).abs().amax(0) / want.abs().amax(0)).max() < 1e-9
    assert "cannot take" not in caplog.text


def test_several_experts_read_the_text(task):
    """Otherwise routing would not be tested."""
    model, ids, *_ = task
    chosen = []
    for module in model.modules():
        if type(module).__name__.endswith("TopKRouter"):
            module.register_forward_hook(lambda _module, _args, out: chosen.append(out[2]))
    model(torch.tensor([ids]))
    assert len(torch.cat(chosen).unique()) >= 3
