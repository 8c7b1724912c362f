"""Every engine, on every family, against the naive token-by-token loop."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers.naive import naive
from helpers.tiny import FAMILIES, VOCAB, in_float64, tiny, tokenizer
from transformers import GenerationConfig

import shiftlens as sl
from shiftlens.attribution import AttributionModule, Costs, Engine, Request, engine, greedy
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.attribution.modes.reverse import reverse
from shiftlens.errors import ShiftLensError
from shiftlens.models import LM, Identity


def unpack(found):
    return found.values, found.reading, found.mode


def truth(model, ids, sources, response):
    # Families whose default attention takes its softmax in float32 would cost the truth nine digits.
    with plain_attention(model):
        return naive(model, ids, sources, response)


@pytest.mark.parametrize("mode", ["reverse", "forward", "mixed", "naive"])
@pytest.mark.parametrize("family", FAMILIES)
def test_exact_in_float64(family, mode):
    if (family, mode) == ("gemma2", "naive"):
        pytest.skip("this family's own attention takes its softmax in float32, and naive keeps it")
    model = tiny(family).requires_grad_(False)
    rng = np.random.default_rng(FAMILIES.index(family))
    for chunk in (1, 3, 50):
        total, response = int(rng.integers(12, 24)), int(rng.integers(1, 8))
        ids = torch.from_numpy(rng.integers(3, VOCAB, total))
        before = total - response
        sources = torch.from_numpy(np.sort(rng.choice(before, min(before, 5), replace=False)))
        want, want_logp = truth(model, ids, sources, response)
        got, (logp, rank, _), _ = unpack(
            Engine(mode, chunk).explain(model, ids.tolist(), sources.tolist(), response)
        )
        assert got.dtype == torch.float64
        assert ((got - want).abs().amax(0) / want.abs().amax(0)).max() < 1e-9
        assert (logp - want_logp).abs().max() < 1e-9
        logits = model(ids[None, :-1]).logits[0, -response:]
        assert rank.tolist() == [
            1 + sum(row.tolist()[k] > row[y] for k in range(VOCAB))
            for row, y in zip(logits, ids[-response:], strict=True)
        ]


def test_reverse_leaves_the_model_as_it_was():
    model = tiny("llama").train()
    before = model.config._attn_implementation
    reverse(model, torch.arange(3, 12), torch.tensor([1, 2]), 3, 2)
    assert model.training
    assert model.config._attn_implementation == before
    assert not model.get_input_embeddings()._forward_hooks
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_zeroed_embedding_is_what_the_gradient_estimates():
    """For a tiny step towards zero the first-order estimate becomes the difference itself."""
    model = tiny("llama").requires_grad_(False)
    ids, source, step = torch.arange(5, 17), 3, 1e-6
    A, (logp, *_), _ = unpack(Engine().explain(model, ids.tolist(), [source], 1))

    def shrink(module, args, out):
        out = out.clone()
        out[0, source] *= 1 - step
        return out

    handle = model.get_input_embeddings().register_forward_hook(shrink)
    moved = torch.log_softmax(model(ids[None, :-1]).logits[0, -1], -1)[ids[-1]]
    handle.remove()
    assert ((logp[0] - moved) / step).item() == pytest.approx(A[0, 0].item(), rel=1e-4)


def test_auto_takes_the_cheapest_way():
    model = tiny("llama")
    assert Engine().choose(model, range(30), 330, 300) == "mixed"
    # A second engine's start must be worth it.
    slow_start = Costs(forward_row=1.0, reverse_row=1.0, forward_fixed=500.0, reverse_fixed=500.0)
    assert Engine(costs=slow_start).choose(model, range(30), 330, 300) == "forward"
    assert Engine(costs=slow_start).choose(model, range(300), 330, 30) == "reverse"
    assert Engine(costs=slow_start).choose(model, range(100), 200, 100) == "mixed"
    # What decides is where the tokens lie, not only how many: late sources are cheap to carry forward.
    assert Engine(costs=slow_start).choose(model, range(300, 330), 360, 30) == "forward"
    slow_forward = Costs(forward_row=1000.0, reverse_row=1.0)
    assert Engine(costs=slow_forward).choose(model, range(30), 330, 300) == "reverse"
    # The graph of reverse does not fit: forward keeps none.
    assert Engine(memory_budget=1000).choose(model, range(300), 330, 30) == "forward"
    with pytest.raises(ValueError, match="auto, reverse, forward, mixed, naive"):
        Engine("fast")
    with pytest.raises(ValueError, match="probability, log_probability, logit_difference"):
        Engine(target="loss")


@pytest.mark.parametrize("family", ["llama", "mistral_sliding", "gemma", "gpt2", "gpt_neox", "opt"])
def test_a_batch_gets_the_responses_of_its_prompts_alone(family):
    model = tiny(family)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, VOCAB, n).tolist() for n in (9, 3, 6)]
    together = greedy(model, prompts, 7, [2, 5])
    assert together == [greedy(model, [prompt], 7, [2, 5])[0] for prompt in prompts]
    for prompt, (response, finished) in zip(prompts, together, strict=True):
        ids = list(prompt)
        for token in [*response, None]:
            best = model(torch.tensor([ids])).logits[0, -1].argmax().item()
            if token is None:
                assert (best in (2, 5)) == finished or len(response) == 7
            else:
                assert best == token
                ids.append(token)


def test_shipped_penalties_and_sampling_settings_do_not_reach_generation():
    model = tiny("llama")
    want = greedy(model, [[3, 4, 5]], 12, [])
    model.generation_config = GenerationConfig(repetition_penalty=5.0, do_sample=True, temperature=3.0)
    shipped = model.generation_config
    assert greedy(model, [[3, 4, 5]], 12, []) == want
    assert model.generation_config is shipped
    penalised = model.generate(torch.tensor([[3, 4, 5]]), do_sample=False, max_new_tokens=12)[0, 3:].tolist()
    assert penalised != want[0][0]  # so the settings would have mattered


@pytest.mark.parametrize("spread", [False, True])
def test_a_model_spread_over_devices_is_kept_from_lightning(spread):
    model = tiny("llama")
    if spread:
        model.hf_device_map = {"": "cpu"}
    module = AttributionModule(LM(model, tokenizer(), "none", Identity("m", "f", "", "float64")))
    assert module.model is model
    assert bool(list(module.parameters())) != spread


def test_what_is_not_finite_is_refused_before_it_reaches_the_ledger():
    model = tiny("llama")
    with torch.no_grad():
        model.model.norm.weight[0] = float("inf")
    module = AttributionModule(LM(model, tokenizer(), "none", Identity("m", "f", "", "float64")))
    with pytest.raises(ShiftLensError, match="not finite"):
        module.predict_step([Request("k", (3, 4, 5), (1, 2), (6, 7), 5, ())])


def test_auto_falls_back_to_reverse_where_there_is_no_forward_derivative(monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError

    ids = list(range(3, 30))
    for mode, costs in (("forward", Costs(1.0, 1.0, 100.0, 100.0)), ("mixed", Costs(1.0, 1.0))):
        monkeypatch.setitem(engine._ENGINES, mode, refuse)
        model = tiny("llama").requires_grad_(False)
        want = Engine("reverse").explain(model, ids, [0, 1], 20).values
        assert Engine(costs=costs).choose(model, [0, 1], 27, 20) == mode
        found = Engine(costs=costs).explain(model, ids, [0, 1], 20)
        assert found.mode == "reverse"
        assert torch.equal(found.values, want)
        assert Engine(costs=costs).choose(model, [0, 1], 27, 20) != mode  # remembered
        with pytest.raises(NotImplementedError):
            Engine(mode).explain(model, ids, [0, 1], 20)


def test_empty_response_is_an_empty_attribution():
    found = Engine().explain(tiny("llama"), [3, 4, 5], [0, 1], 0)
    assert found.values.shape == (2, 0)
    assert found.reading.log_probability.shape == (0,)


@pytest.fixture(scope="module")
def real_truth(real_base):
    """A response of the real model with near-certain tokens, explained in float64 by the naive loop."""
    att = sl.attribute(real_base, "Count from 1 to 10.", max_new_tokens=8)
    exact = in_float64(copy.deepcopy(real_base.model))
    ids, places = torch.from_numpy(att.input_ids).long(), torch.from_numpy(att.prompt_index).long()
    want, logp = truth(exact, ids, places, len(att.response_tokens))
    assert (1 - logp.exp()).min() < 1e-3  # where 1 - p, taken after rounding, is mostly noise
    return att, want, logp


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["reverse", "forward", "mixed", "naive"])
def test_real_model_in_float32(real_base, real_truth, mode):
    """Against float64, not against another float32 loop: those share their rounding of 1 - p."""
    att, want, logp = real_truth
    found = Engine(mode).explain(
        real_base.model, att.input_ids.tolist(), att.prompt_index.tolist(), len(att.response_tokens)
    )
    assert ((found.values - want).abs().amax(0) / want.abs().amax(0)).max() < 3e-4
    np.testing.assert_allclose(found.reading.log_probability, logp, rtol=1e-3)
