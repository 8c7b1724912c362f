"""AttnLRP: every engine against a plain re-statement, conservation where the rules conserve, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers.attn_lrp import relevance
from helpers.more_families import MORE, build
from helpers.tiny import FAMILIES, VOCAB, tiny
from torch import nn
from transformers import AutoModelForCausalLM, MixtralConfig

from shiftlens.attribution import Engine
from shiftlens.attribution.methods import Lrp
from shiftlens.attribution.modes.lrp_rules import LRP_FAMILIES, differentiated
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.attribution.variant import Variant
from shiftlens.errors import ShiftLensError

MODES = ("reverse", "forward", "mixed", "naive")
ALL = (*FAMILIES, *MORE)


@pytest.mark.parametrize("target", ["log_probability", "logit_difference"])
@pytest.mark.parametrize("family", ["llama", "llama_biased", "mistral", "qwen2", "qwen3", "gemma", "gemma2"])
def test_every_engine_gives_the_relevances_of_the_paper(family, target):
    model = tiny(family).requires_grad_(False)
    rng = np.random.default_rng(FAMILIES.index(family))
    ids = torch.from_numpy(rng.integers(3, VOCAB, 11))
    want, f = relevance(model, ids, 3, target)
    for mode in MODES:
        got = Lrp().explain(model, ids.tolist(), range(10), 3, Engine(mode, int(rng.integers(1, 6)), target))
        assert ((got.values - want).abs().amax(0) / want.abs().amax(0)).max() < 1e-9
        if target == "log_probability":
            assert (got.reading.log_probability - f).abs().max() < 1e-9


@pytest.mark.parametrize("family", ALL)
def test_engines_agree_on_all_families(family):
    model = build(family).requires_grad_(False)
    rng = np.random.default_rng(ALL.index(family))
    total, response = int(rng.integers(12, 20)), int(rng.integers(2, 7))
    ids = rng.integers(3, VOCAB, total).tolist()
    sources = rng.choice(total - 1, 6, replace=False).tolist()
    want = Lrp().explain(model, ids, sources, response, Engine("naive")).values
    plain = Engine("naive").explain(model, ids, sources, response).values
    assert (want - plain).abs().max() > 1e-3 * want.abs().max()  # the rules matter
    for mode in ("reverse", "forward", "mixed"):
        got = Lrp().explain(model, ids, sources, response, Engine(mode, int(rng.integers(1, 6)))).values
        assert ((got - want).abs().amax(0) / want.abs().amax(0)).max() < 1e-9


@pytest.mark.parametrize("family", ALL)
def test_relevance_is_conserved_where_nothing_keeps_or_loses_it(family):
    """Biases keep relevance, and softmax loses some of the attention's: without both, the sum is f itself."""
    model = build(family).requires_grad_(False)
    for name, parameter in model.named_parameters():
        out = any(name.endswith(f"{part}.weight") for part in ("o_proj", "attn.c_proj", "out_proj", "dense"))
        if out or name.endswith("bias") or "wpe" in name or "embed_positions" in name:
            parameter.zero_()
    ids = torch.arange(5, 17)
    found = Lrp().explain(model, ids.tolist(), range(11), 4, Engine(target="logit_difference")).values
    logits = model(ids[None, :-1]).logits[0, -4:]
    for row, wanted, column in zip(logits, ids[-4:], found.T, strict=True):
        others = torch.cat([row[:wanted], row[wanted + 1 :]])
        assert column.sum() == pytest.approx(float(row[wanted] - others.max()), rel=1e-9)


@pytest.mark.parametrize("family", ["gemma2", "qwen3", "gpt_neox"])
def test_values_stay_as_they_are_and_the_model_is_restored(family):
    model, ids = tiny(family).requires_grad_(False), torch.arange(3, 15)[None]
    before = copy.deepcopy(model.config.to_dict())
    with plain_attention(model):
        want = model(ids).logits
    with differentiated(model, Variant(lrp=True)):
        assert torch.equal(model(ids).logits, want)
    with pytest.raises(RuntimeError), differentiated(model, Variant(lrp=True)):
        raise RuntimeError
    assert model.config.to_dict() == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert model.config._attn_implementation == tiny(family).config._attn_implementation


@pytest.mark.parametrize(
    ("family", "dtype"), [("llama", torch.bfloat16), ("gpt2", torch.float16), ("gemma2", torch.bfloat16)]
)
def test_half_precision(family, dtype):
    ids = list(range(3, 17))
    want = Lrp().explain(tiny(family).requires_grad_(False), ids, range(9), 5, Engine()).values
    for mode in MODES:
        got = Lrp().explain(tiny(family, dtype).requires_grad_(False), ids, range(9), 5, Engine(mode)).values
        correlation = torch.corrcoef(torch.stack([got.double().flatten(), want.flatten()]))[0, 1]
        assert correlation > 1 - 2 * torch.finfo(dtype).eps


def test_unknown_parts_are_refused_by_name():
    class Odd(nn.Module):
        def forward(self, x):
            return x + 1

    text = (list(range(3, 12)), range(4), 3)
    for part, name in (("act_fn", "layers.1.mlp.act_fn"), ("up_proj", "layers.1.mlp.up_proj")):
        model = tiny("llama").requires_grad_(False)
        setattr(model.model.layers[1].mlp, part, Odd())
        for mode in ("auto", "naive"):
            with pytest.raises(ShiftLensError, match=rf"no rule here for {name} \(Odd\)"):
                Lrp().explain(model, *text, Engine(mode))
    for act in (nn.Sigmoid(), nn.Softplus()):  # a(0) is not 0
        model.model.layers[1].mlp = tiny("llama").model.layers[1].mlp
        model.model.layers[1].mlp.act_fn = act
        with pytest.raises(ShiftLensError, match=f"act_fn .{type(act).__name__}"):
            Lrp().explain(model, *text, Engine())
    model = tiny("llama").requires_grad_(False)
    model.model.norm.forward = torch.tanh
    with pytest.raises(ShiftLensError, match=r"norm \(LlamaRMSNorm\)"):
        Lrp().explain(model, *text, Engine())


def test_unknown_model_types_are_refused_by_name():
    config = MixtralConfig(vocab_size=VOCAB, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                           num_attention_heads=2, num_key_value_heads=2, num_local_experts=2)  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    with pytest.raises(ShiftLensError, match=f"the model type mixtral, only for {', '.join(LRP_FAMILIES)}"):
        Lrp().explain(model, list(range(3, 12)), range(4), 3, Engine("reverse"))
