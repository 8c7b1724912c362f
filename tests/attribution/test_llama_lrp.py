"""AttnLRP in the hand-written layers, against a plain model whose autograd gradient is the relevance rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.plain_attnlrp import body, plain_attnlrp
from helpers.tiny import VOCAB, tiny

from shiftlens.attribution import Engine
from shiftlens.attribution.llama import causal_attention, packing
from shiftlens.attribution.llama.gated_mlp import gates
from shiftlens.attribution.modes.mixed import mixed
from shiftlens.attribution.variant import Variant

FAMILIES = ("llama", "llama_biased", "mistral", "qwen2", "qwen3")
LRP = Variant(lrp=True)


def off(got, want):
    """Largest error relative to the largest entry of its column."""
    return ((got - want).abs().amax(0) / want.abs().amax(0)).max().item()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_model_is_the_model(family):
    """Only its gradients differ."""
    model, ids = tiny(family).requires_grad_(False), torch.arange(3, 20)
    want = model.model(ids[None]).last_hidden_state[0]
    torch.testing.assert_close(body(model, model.get_input_embeddings()(ids)), want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", ["forward", "reverse", "mixed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_mode_follows_the_rules(family, mode):
    model, rng = tiny(family).requires_grad_(False), np.random.default_rng(FAMILIES.index(family))
    for variant in (LRP, Variant(lrp=True, baseline=torch.from_numpy(rng.normal(size=32)))):
        total, response = int(rng.integers(14, 24)), int(rng.integers(2, 8))
        ids = torch.from_numpy(rng.integers(3, VOCAB, total))
        sources = torch.from_numpy(rng.choice(total - 2, 6, replace=False))
        want = plain_attnlrp(model, ids, sources, response, 0.0 if variant is LRP else variant.baseline)
        got = Engine(mode).explain(model, ids.tolist(), sources.tolist(), response, variant).values
        assert want.abs().amax(0).min() > 0
        assert off(got, want) < 1e-9
        gradient = Engine(mode).explain(model, ids.tolist(), sources.tolist(), response).values
        assert off(gradient, want) > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_cut_gives_the_same_numbers(family, monkeypatch):
    # Smaller than the text, so that packs differ in their places and attention has several blocks.
    monkeypatch.setattr(packing, "COUNT", 2)
    monkeypatch.setitem(causal_attention.BLOCK, "cpu", 4)
    model, ids, sources = tiny(family).requires_grad_(False), torch.arange(3, 20), torch.tensor([9, 2, 12, 5])
    want = plain_attnlrp(model, ids, sources, 7)
    for cut in np.random.default_rng(0).choice(17, 6, replace=False).tolist():
        got, _ = mixed(model, ids, sources, 7, 3, cut=cut, variant=LRP)
        assert off(got, want) < 1e-9, cut


def test_a_gate_of_zero_passes_its_slope():
    """There the ratio a(g) / g is 0 / 0, and its limit a'(0) is 1/2 for SiLU."""
    mlp, y = tiny("llama").model.layers[0].mlp.requires_grad_(False), torch.randn(3, 32, dtype=torch.float64)
    mlp.gate_proj.weight[0] = 0
    by_gate = gates(mlp, y, lrp=True).by_gate
    assert by_gate.isfinite().all()
    torch.testing.assert_close(by_gate[:, 0], mlp.up_proj(y)[:, 0] / 4)


def test_norms_and_gated_products_conserve():
    """Without attention (whose softmax keeps relevance back) the relevances add up to the explained number."""
    model, ids = tiny("llama").requires_grad_(False), torch.arange(3, 15)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
    got, _ = mixed(model, ids, torch.arange(11), 3, 16, "logit_difference", cut=10, variant=LRP)
    for m, logits in enumerate(model(ids[None, :-1]).logits[0, -3:]):
        own = logits[ids[m - 3]].item()
        logits[ids[m - 3]] = -torch.inf
        assert got[:, m].sum().item() == pytest.approx(own - logits.max().item(), rel=1e-9)
