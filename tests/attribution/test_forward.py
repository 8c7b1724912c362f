"""Both engines, generic and written out, against one backward pass per token."""

from __future__ import annotations

import pytest
import torch
from helpers.naive import naive
from helpers.tiny import FAMILIES, VOCAB, tiny

from shiftlens.attribution.llama import causal_attention
from shiftlens.attribution.llama import layer as llama_layer
from shiftlens.attribution.llama import packing as llama_rows
from shiftlens.attribution.modes.forward import forward
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.attribution.modes.reverse import reverse

WRITTEN_OUT = {"llama", "llama_biased", "mistral", "qwen2", "qwen3"}
CASES = [  # total, response, sources, chunk
    (21, 6, [9, 2, 14, 3], 1),  # not sorted, not contiguous; 14 is the one right before the response
    (21, 6, [2, 3, 9, 14, 5], 2),
    (17, 1, [0, 1, 8, 15], 50),  # one response token, the first id of all, chunk above N
    (9, 8, [0], 3),  # everything but one id is response
    (21, 7, [15, 6, 17, 5], 3),  # response tokens are sources too, and no source is near the start
]


@pytest.fixture(autouse=True)
def one_thread():
    """Products this small only lose time to threads waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ids():
    return torch.randint(3, VOCAB, (21,), generator=torch.Generator().manual_seed(1))


def off(got, want):
    """Largest error relative to the largest entry of its column."""
    return ((got - want).abs().amax(0) / want.abs().amax(0)).max().item()


def truth(model, ids, sources, response):
    # Families whose default attention takes its softmax in float32 would cost the truth nine digits.
    with plain_attention(model):
        return naive(model, ids, sources, response)


@pytest.mark.parametrize("written_out", [True, False])
@pytest.mark.parametrize("engine", [forward, reverse])
@pytest.mark.parametrize("family", FAMILIES)
def test_exact_in_float64(family, engine, written_out, ids, monkeypatch):
    model = tiny(family)
    if written_out and family not in WRITTEN_OUT:
        pytest.skip("the generic path is the only one")
    # Smaller than the texts, so that parts differ in their places and attention has several blocks.
    monkeypatch.setattr(llama_rows, "COUNT", 2)
    monkeypatch.setitem(causal_attention.BLOCK, "cpu", 4)
    for total, response, sources, chunk in CASES:
        at = torch.tensor(sources)
        want, want_logp = truth(model, ids[:total], at, response)
        got, (logp, *_) = engine(model, ids[:total], at, response, chunk, written_out=written_out)
        assert got.dtype == logp.dtype == torch.float64
        if family != "mistral_sliding" or total < 17:  # there, far sources have no influence at all
            assert want.abs().amax(0).min() > 0
        assert torch.equal(got[:, want.abs().amax(0) == 0], want[:, want.abs().amax(0) == 0])
        assert off(got[:, want.abs().amax(0) > 0], want[:, want.abs().amax(0) > 0]) < 1e-9
        assert (logp - want_logp).abs().max() < 1e-12


def test_written_out_layers_are_taken_where_they_hold():
    assert {family for family in FAMILIES if llama_layer.takes(tiny(family), 30)} == WRITTEN_OUT
    sliding = tiny("mistral_sliding")  # a window of 6
    assert llama_layer.takes(sliding, 6)
    assert not llama_layer.takes(sliding, 7)
    assert llama_layer.takes(tiny("qwen3", torch.bfloat16), 30)
    assert llama_layer.takes(tiny("llama", torch.float16), 30)
    adapted = tiny("llama")
    layer = adapted.model.layers[1].mlp
    layer.up_proj = torch.nn.Sequential(layer.up_proj)
    assert not llama_layer.takes(adapted, 6)


@pytest.mark.parametrize("part", ["self_attn.scaling", "mlp.act_fn", "input_layernorm.variance_epsilon"])
def test_a_layer_that_lacks_a_part_is_left_to_generic_derivatives(part):
    model = tiny("llama")
    owner, name = part.split(".")
    delattr(getattr(model.model.layers[1], owner), name)
    assert not llama_layer.takes(model, 9)


def test_quantized_weights_take_generic_derivatives_and_the_log_says_so_once(caplog):
    model = tiny("llama")
    model.hf_quantizer = object()
    with caplog.at_level("INFO"):
        assert not any(llama_layer.takes(model, 9) for _ in range(3))
    assert caplog.text.count("quantized") == 1


def test_window_that_is_just_long_enough(ids):
    """At 6 ids a window of 6 hides nothing, and the written-out path must agree with the masked model."""
    model, at = tiny("mistral_sliding"), torch.tensor([0, 2])
    want, _ = truth(model, ids[:6], at, 2)
    for engine in (forward, reverse):
        assert off(engine(model, ids[:6], at, 2, 4)[0], want) < 1e-9


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_the_model_is_left_as_it_was(family, ids):
    model = tiny(family).train()
    list(model.modules())[-1].eval()  # a module frozen in evaluation mode stays so
    attention = model.config._attn_implementation
    modes = [module.training for module in model.modules()]
    first, _ = forward(model, ids, torch.tensor([1, 4]), 3, 8)
    assert model.config._attn_implementation == attention
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.is_grad_enabled()
    # Dropout, on in training mode for GPT-2, must not have played a part.
    assert torch.equal(first, forward(model.eval(), ids, torch.tensor([1, 4]), 3, 8)[0])


def test_the_model_is_left_as_it_was_after_an_error(ids):
    model = tiny("llama")
    with pytest.raises(IndexError):
        forward(model, ids + VOCAB, torch.tensor([1]), 3, 8)
    assert model.config._attn_implementation == "sdpa"
    assert not model.get_input_embeddings()._forward_hooks
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_half_precision_gives_float32_near_the_truth(family, ids):
    at = torch.tensor([2, 3, 9, 14])
    want, _ = truth(tiny(family, torch.float32), ids, at, 6)
    half = tiny(family, torch.bfloat16)
    got, (logp, *_) = forward(half, ids, at, 6, 3)
    assert got.dtype == logp.dtype == torch.float32
    assert off(got, want) < 0.12


def test_no_sources_is_an_empty_answer(ids):
    A, (logp, *_) = forward(tiny("llama"), ids, torch.tensor([], dtype=torch.long), 4, 2)
    assert A.shape == (0, 4)
    assert logp.shape == (4,)


@pytest.mark.parametrize(
    ("sources", "response", "chunk", "message"),
    [
        ([1], 0, 1, "response must be in 1..20"),
        ([1], 21, 1, "response must be in 1..20"),
        ([1], 3, 0, "chunk must be at least 1"),
        ([1, 20], 3, 1, "before the last token"),
        ([-1], 3, 1, "before the last token"),
    ],
)
def test_what_is_out_of_range_is_refused(ids, sources, response, chunk, message):
    with pytest.raises(ValueError, match=message):
        forward(tiny("llama"), ids, torch.tensor(sources), response, chunk)
