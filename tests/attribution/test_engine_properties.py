"""Whatever the family, lengths, sources, target and memory: every engine gives the numbers of the naive loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.naive import naive
from helpers.tiny import FAMILIES, VOCAB, tiny, tokenizer

from shiftlens.attribution import (
    AttributionModule,
    Costs,
    Engine,
    Request,
    engine,
    parse_budget,
)
from shiftlens.attribution.llama import causal_attention as llama_attention
from shiftlens.attribution.modes import plain_attention as attention
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.attribution.plan.memory import free_bytes, need
from shiftlens.attribution.plan.row_counts import token_rows
from shiftlens.attribution.request import batches, by_cost
from shiftlens.attribution.targets import TARGETS, at_logits, stored
from shiftlens.errors import ShiftLensError
from shiftlens.models import LM, Identity
from shiftlens.scores.precision import agreement

TINY = Identity("m", "f", "", "float64")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", FAMILIES)
def test_engines_agree_on_random_texts(family, seed, monkeypatch):
    # Texts here are shorter than a block; cut them into some.
    monkeypatch.setattr(attention, "_BLOCK", (128, 5)[seed % 2])
    monkeypatch.setitem(llama_attention.BLOCK, "cpu", (128, 5)[seed % 2])
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    model = tiny(family, seed=seed).requires_grad_(False)
    total = int(rng.integers(4, 40))
    response = int(rng.integers(1, total - 1))
    ids = torch.from_numpy(rng.integers(3, VOCAB, total))
    # Any mask over the prompt, and over the response too, in any order.
    chosen = np.flatnonzero(rng.random(total - 1) < rng.random())
    sources = torch.from_numpy(rng.permutation(chosen)).long()
    target = str(rng.choice(TARGETS))
    with plain_attention(model):
        want, _ = naive(model, ids, sources, response, stored(target))
    for mode in ("reverse", "forward", "mixed", "auto"):
        found = Engine(mode, int(rng.integers(1, 9)), target).explain(
            model, ids.tolist(), sources.tolist(), response
        )
        off = (found.values - want).abs().amax(0) if len(sources) else torch.zeros(response)
        # A column whose sources all lie behind it is zero.
        assert (off <= 1e-9 * want.abs().amax(0)).all() if len(sources) else found.values.shape == want.shape


def test_gradient_at_the_logits_is_that_of_autograd():
    torch.manual_seed(0)
    logits = (8 * torch.randn(6, 20, dtype=torch.float64)).requires_grad_()
    wanted = torch.randint(20, (6,))
    own = logits.gather(1, wanted[:, None])[:, 0]
    other = logits.scatter(1, wanted[:, None], -torch.inf).amax(1)
    for target, f in (
        ("log_probability", logits.log_softmax(1).gather(1, wanted[:, None])[:, 0]),
        ("logit_difference", own - other),
    ):
        got, reading = at_logits(logits, wanted, target)
        (want,) = torch.autograd.grad(f.sum(), logits, retain_graph=True)
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        reading.log_probability, logits.log_softmax(1).gather(1, wanted[:, None])[:, 0].detach()
    )


def test_near_certain_tokens_keep_their_digits():
    """Float32 logits with p = 1 - 2e-7: 1 - p after rounding has no digit left, the sum of the others has seven."""
    logits = torch.tensor([[16.0, 0.5, -0.25, 0.125]])
    got, _ = at_logits(logits, torch.tensor([0]), "log_probability")
    want, _ = at_logits(logits.double(), torch.tensor([0]), "log_probability")
    assert ((got - want).abs() / want.abs()).max() < 1e-6
    plain = 1 - torch.softmax(logits, 1)[0, 0]
    assert abs(plain - want[0, 0]) / want[0, 0] > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["reverse", "forward", "mixed"])
def test_half_precision_follows_float32(dtype, mode):
    ids, sources = torch.arange(3, 33).tolist(), list(range(2, 14))
    model = tiny("llama", torch.float32).requires_grad_(False)
    want = Engine("reverse").explain(model, ids, sources, 12).values
    got = Engine(mode).explain(model.to(dtype), ids, sources, 12).values
    assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.995


def test_a_tiny_gradient_does_not_underflow_in_half_precision():
    """A near-certain token: its gradient is below the smallest number of float16, its direction is not."""
    model = tiny("llama", torch.float32).requires_grad_(False)
    ids = torch.arange(3, 15)
    with torch.no_grad():
        hidden = model.model(ids[None, :-1]).last_hidden_state[0, -1]
        model.lm_head.weight[ids[-1]] = 25 * hidden / hidden.square().sum()
        model.lm_head.weight[20:] *= 0.05
    exact = Engine("reverse").explain(model, ids.tolist(), [1, 2, 3, 4], 1).values
    assert 0 < exact.abs().max() < 6e-8
    for mode in ("reverse", "forward", "mixed"):
        half = Engine(mode).explain(model.half(), ids.tolist(), [1, 2, 3, 4], 1).values
        assert np.corrcoef(half.ravel(), exact.ravel())[0, 1] > 0.99
        model.float()


def test_memory_running_out_halves_the_chunk_and_keeps_the_numbers(monkeypatch, caplog):
    model, tried = tiny("llama").requires_grad_(False), []
    ids, sources = list(range(3, 30)), list(range(1, 12))
    want = Engine("forward").explain(model, ids, sources, 9).values
    whole = engine._ENGINES["forward"]

    def small(model, ids, sources, response, chunk, target, variant):
        tried.append(chunk)
        if chunk > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(model, ids, sources, response, chunk, target)

    monkeypatch.setitem(engine._ENGINES, "forward", small)
    got = Engine("forward", 16).explain(model, ids, sources, 9).values
    assert tried == [16, 8, 4, 2]
    assert "saliency.chunk=2" in caplog.text
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    monkeypatch.setitem(engine._ENGINES, "forward", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(ShiftLensError, match=r"data\.max_tokens"):
        Engine("forward").explain(model, ids, sources, 9)


def test_a_budget_bounds_the_chunk():
    config = tiny("llama").config
    some = need(config, 4, "forward", 1000, 500, written_out=False)
    assert some.chunk(some.fixed + 5 * some.each, 64) == 5
    assert some.chunk(0, 64) == 1
    assert some.chunk(10**15, 64) == 64
    assert free_bytes(torch.device("cpu")) > 10**6
    assert parse_budget("2GB") == 2 * 10**9
    for bad in (0, -1, "much", "GB", True):
        with pytest.raises(ValueError, match="8GB"):
            parse_budget(bad)


def test_rows_are_counted_as_they_are_carried():
    """Against a count over every pair of a source or response token and a position its derivative reaches."""
    total, response, sources = 23, 9, [4, 1, 7]
    assert token_rows("forward", sources, total, response) == sum(
        1 for s in sources for at in range(total - 1) if at >= s
    )
    assert token_rows("reverse", sources, total, response) == sum(
        1 for y in range(total - response, total) for at in range(total) if at < y
    )


def request(key, prompt, response=None, longest=5, **more):
    return Request(key, tuple(prompt), tuple(range(1, len(prompt))), response, longest, (2,), **more)


def test_batches_are_sorted_and_within_the_budget():
    rng = np.random.default_rng(0)
    requests = [request(str(i), range(int(n))) for i, n in enumerate(rng.integers(1, 60, 40))]
    requests.append(request("given", range(9), response=(1, 2)))
    ordered = by_cost(requests)
    found = batches(ordered, 200)
    assert sorted(r.key for b in found for r in b) == sorted(r.key for r in requests if r.response_ids is None)
    for batch in found:
        longest = max(len(r.input_ids) + 5 for r in batch)
        assert len(batch) == 1 or longest * len(batch) <= 200
    lengths = [len(r.input_ids) for r in ordered]
    assert lengths == sorted(lengths, reverse=True)


def test_a_module_gives_the_same_rows_in_batches_and_alone():
    lm = LM(tiny("llama").requires_grad_(False), tokenizer(), "none", TINY)
    rng = np.random.default_rng(1)
    requests = [request(str(n), rng.integers(3, VOCAB, n).tolist(), longest=7) for n in (9, 4, 6)]

    class Alone:
        global_rank, world_size = 0, 1

    together = AttributionModule(lm, requests, batch_tokens=1000)
    together._trainer = Alone()
    rows = [row for batch in together.predict_dataloader() for row in together.predict_step(batch)]
    assert [row.key for row in rows] == ["9", "6", "4"]
    for row in rows:
        (alone,) = AttributionModule(lm).predict_step([r for r in requests if r.key == row.key])
        np.testing.assert_array_equal(row.input_ids, alone.input_ids)
        np.testing.assert_allclose(row.values, alone.values, rtol=1e-6, atol=1e-9)


def test_ranks_share_the_samples_and_an_idle_one_takes_an_empty_step():
    lm = LM(tiny("llama"), tokenizer(), "none", TINY)
    requests = [request(str(n), range(n)) for n in (3, 9, 4, 7, 5)]
    seen = []
    for rank in range(7):
        module = AttributionModule(lm, requests)
        module._trainer = type("Trainer", (), {"global_rank": rank, "world_size": 7})()
        steps = list(module.predict_dataloader())
        assert len(steps) == 1
        seen += [r.key for step in steps for r in step]
        assert module.predict_step([]) == []
    assert sorted(seen) == ["3", "4", "5", "7", "9"]


def test_response_tokens_as_sources():
    model = tiny("llama").requires_grad_(False)
    lm = LM(model, tokenizer(), "none", TINY)
    (row,) = AttributionModule(lm).predict_step(
        [request("k", range(3, 9), response=(9, 10, 11, 12), include_response=True)]
    )
    want, _ = naive(model, torch.arange(3, 13), torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 9]), 4)
    assert row.values.shape == (9, 4)
    np.testing.assert_allclose(row.values, want, rtol=1e-5, atol=1e-9)
    assert not np.triu(row.values[5:].T).any()  # a token does not explain itself, or those before it
    (empty,) = AttributionModule(lm).predict_step([request("k", range(3, 9), response=(), include_response=True)])
    assert empty.values.shape == (5, 0)


def test_agreement_with_float32_is_measured_on_the_same_ids():
    lm = LM(tiny("llama", torch.float32).requires_grad_(False), tokenizer(), "none", TINY)
    requests = [request(str(n), range(3, 3 + n), response=tuple(range(20, 29))) for n in (5, 8)]
    exact = AttributionModule(lm).predict_step(requests)
    assert agreement(exact, exact) == pytest.approx(
        {"n": 2, "correlation": 1, "correlation_lowest": 1, "error": 0, "same_score": 1}
    )
    lm.model.to(torch.bfloat16)
    found = agreement(AttributionModule(lm).predict_step(requests), exact)
    assert 0.99 < found["correlation_lowest"] <= found["correlation"] < 1
    assert 0 < found["error"] < 0.2
    assert 0.5 < found["same_score"] < 1
    with pytest.raises(ValueError, match="same ids"):
        agreement(exact, exact[::-1])


def test_a_model_with_other_logits_in_plain_attention_is_refused(monkeypatch):
    model = tiny("gpt2")
    plain = attention._weights
    monkeypatch.setattr(attention, "_weights", lambda *args: 2 * plain(*args))
    with pytest.raises(ShiftLensError, match="other logits"):
        Engine("reverse").explain(model, list(range(3, 12)), [1], 3)


def test_rotations_that_depend_on_the_length_are_refused_behind_the_trained_one():
    model = tiny("llama").requires_grad_(False)
    model.config.rope_parameters = {"rope_type": "dynamic", "original_max_position_embeddings": 16}
    ids = list(range(3, 20))
    assert Engine("reverse").explain(model, ids[:16], [1], 3).values.abs().sum() > 0
    with pytest.raises(ShiftLensError, match=r"saliency\.mode=naive"):
        Engine("reverse").explain(model, ids, [1], 3)


def test_auto_goes_over_to_forward_when_reverse_runs_out_of_memory(monkeypatch):
    model = tiny("llama").requires_grad_(False)
    ids, sources = list(range(3, 60)), list(range(40))
    want = Engine("forward").explain(model, ids, sources, 5).values
    monkeypatch.setitem(engine._ENGINES, "reverse", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError))
    found = Engine(costs=Costs(forward_row=9.0, reverse_row=1.0)).explain(model, ids, sources, 5)
    assert found.mode == "forward"
    torch.testing.assert_close(found.values, want)
    with pytest.raises(ShiftLensError, match="memory ran out"):
        Engine("reverse").explain(model, ids, sources, 5)
