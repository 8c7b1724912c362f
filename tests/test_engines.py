"""Every engine, on every family, against the naive token-by-token loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from naive import naive
from tiny import FAMILIES, VOCAB, tiny, tokenizer
from transformers import GenerationConfig

import shiftlens as sl
from shiftlens.attribution import AttributionModule, Request, choose, engine, greedy, log_gradient
from shiftlens.attribution.attention import plain_attention
from shiftlens.attribution.reverse import reverse
from shiftlens.errors import ShiftLensError
from shiftlens.models import LM, Identity


def truth(model, ids, sources, response):
    # Families whose default attention takes its softmax in float32 would cost the truth nine digits.
    with plain_attention(model):
        return naive(model, ids, sources, response)


@pytest.mark.parametrize("mode", ["reverse", "forward", "naive"])
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
        got, logp = log_gradient(model, ids.tolist(), sources.tolist(), response, mode, chunk)
        assert got.dtype == torch.float64
        assert ((got - want).abs().amax(0) / want.abs().amax(0)).max() < 1e-9
        assert (logp - want_logp).abs().max() < 1e-9


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
    A, logp = log_gradient(model, ids.tolist(), [source], 1)

    def shrink(module, args, out):
        out = out.clone()
        out[0, source] *= 1 - step
        return out

    handle = model.get_input_embeddings().register_forward_hook(shrink)
    moved = torch.log_softmax(model(ids[None, :-1]).logits[0, -1], -1)[ids[-1]]
    handle.remove()
    assert ((logp[0] - moved) / step).item() == pytest.approx(A[0, 0].item(), rel=1e-4)


def test_auto_takes_the_cheaper_way():
    assert choose("auto", 30, 300) == "forward"
    assert choose("auto", 300, 30) == "reverse"
    with pytest.raises(ValueError, match="auto, reverse, forward, naive"):
        choose("fast", 1, 1)


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
    def refuse(*_):
        raise NotImplementedError

    monkeypatch.setattr(engine, "forward", refuse)
    model, ids = tiny("llama").requires_grad_(False), list(range(3, 30))
    want, _ = log_gradient(model, ids, [0, 1], 20, "reverse")
    assert choose("auto", 2, 20) == "forward"
    assert torch.equal(log_gradient(model, ids, [0, 1], 20, "auto")[0], want)
    with pytest.raises(NotImplementedError):
        log_gradient(model, ids, [0, 1], 20, "forward")


def test_empty_response_is_an_empty_attribution():
    A, logp = log_gradient(tiny("llama"), [3, 4, 5], [0, 1], 0)
    assert A.shape == (2, 0)
    assert logp.shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_real_model_in_float32(real_base, mode):
    """Float32 noise of the real model stays under 3e-4 of each column's largest entry."""
    att = sl.attribute(real_base, "Rewrite in capitals: the cat sat", response="THE CAT SAT", mode=mode)
    want, logp = naive(
        real_base.model,
        torch.from_numpy(att.input_ids).long(),
        torch.from_numpy(att.prompt_index).long(),
        len(att.response_tokens),
    )
    want = (want * logp.exp()).numpy()
    assert (np.abs(att.importance - want).max(0) / np.abs(want).max(0)).max() < 3e-4
    np.testing.assert_allclose(att.probability, logp.exp().numpy(), rtol=1e-3)
