"""Hand-written derivatives in half precision, against float64 derivatives of the same weights."""

from __future__ import annotations

import pytest
import torch
from helpers.naive import naive
from helpers.plain_attnlrp import plain_attnlrp
from helpers.tiny import VOCAB, in_float64, tiny

from shiftlens.attribution.llama.layer import takes
from shiftlens.attribution.llama.products import Widened, add_product, product
from shiftlens.attribution.llama.tangents import llama_tangents
from shiftlens.attribution.modes.mixed import mixed
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.attribution.modes.primal import primal_pass
from shiftlens.attribution.plan.memory import crossing_bytes, kept
from shiftlens.attribution.variant import Variant

HALF = (torch.bfloat16, torch.float16)
SOURCES = torch.tensor([9, 2, 3, 12, 5])
TOTAL, RESPONSE = 21, 6


@pytest.fixture
def ids():
    return torch.randint(3, VOCAB, (TOTAL,), generator=torch.Generator().manual_seed(1))


def off(got, want):
    """Largest error relative to the largest entry of its column."""
    return ((got - want).abs().amax(0) / want.abs().amax(0)).max().item()


@pytest.mark.parametrize("lrp", [False, True])
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("family", ["llama_biased", "qwen3"])
def test_every_cut_is_near_float64(family, dtype, lrp, ids):
    half, exact = (tiny(family, dtype).requires_grad_(False) for _ in range(2))
    exact = in_float64(exact)  # the rounded weights
    assert takes(half, TOTAL)
    with plain_attention(exact):
        want = plain_attnlrp(exact, ids, SOURCES, RESPONSE) if lrp else naive(exact, ids, SOURCES, RESPONSE)[0]
    for cut in (0, 4, 10, 20):
        got, reading = mixed(half, ids, SOURCES, RESPONSE, 3, cut=cut, variant=Variant(lrp=lrp))
        assert got.dtype == reading.log_probability.dtype == torch.float32
        assert off(got, want) < 8 * torch.finfo(dtype).eps
        if not lrp:
            generic, _ = mixed(half, ids, SOURCES, RESPONSE, 3, cut=cut, written_out=False)
            assert (got - want).norm() < (generic - want).norm()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_products_neither_underflow_nor_overflow(dtype, size):
    x, weight = torch.randn(5, 8) * size, torch.randn(8, 3).to(dtype)
    x[2] *= 1e-9  # rows fade
    want = x.double() @ weight.double()
    for got in (product(x, weight), add_product(torch.zeros(5, 3), x, weight)):
        error = (got - want).abs().amax(1) / (x.double().abs() @ weight.double().abs()).amax(1)
        assert error.max() < torch.finfo(dtype).eps


def test_the_ordinary_pass_is_widened(ids):
    """Its values are those of a float32 model with the rounded weights, bit for bit."""
    half, single = (tiny("qwen3", torch.bfloat16).requires_grad_(False) for _ in range(2))
    single = single.float()
    with torch.no_grad(), plain_attention(half), Widened():
        got = primal_pass(half, ids, RESPONSE, "log_probability", [half.model.norm])
    with torch.no_grad(), plain_attention(single):
        want = primal_pass(single, ids, RESPONSE, "log_probability", [single.model.norm])
    for name in ("embeddings", "gradient", "hidden"):
        assert torch.equal(getattr(got, name), getattr(want, name))
    for a, b in zip(
        (*got.keys, *got.values, *got.streams), (*want.keys, *want.values, *want.streams), strict=True
    ):
        assert torch.equal(a, b)
    assert all(parameter.dtype == torch.bfloat16 for parameter in half.parameters())


def test_what_is_kept_at_the_cut_is_what_the_estimate_says(ids):
    model, cut = tiny("llama", torch.bfloat16).requires_grad_(False), 11
    with torch.no_grad(), plain_attention(model), Widened():
        primal = primal_pass(model, ids, RESPONSE, "log_probability")
        _, crossings = llama_tangents(model, primal, [2, 3, 5, 9], cut, hidden=False, crossing=True)
    size = sum(each.nbytes for crossing in crossings for each in crossing.moved)
    assert size == kept(model.config, 2, [2, 3, 5, 9], TOTAL, True, 16)[cut]
    assert size % crossing_bytes(model.config, 4) == 0
