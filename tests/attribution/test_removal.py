"""Whatever the family, way, units, lengths and packs: removal gives the numbers of one forward for each of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.removed import removed
from helpers.tiny import FAMILIES, VOCAB, tiny, tokenizer
from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM

from shiftlens.attribution import AttributionModule, Engine, Request
from shiftlens.attribution.methods import Ablation
from shiftlens.attribution.removal import REMOVALS, removal, runs
from shiftlens.attribution.removal.suffixes import packs_of, suffix_of
from shiftlens.errors import ConfigError
from shiftlens.models import LM, Identity

IDS, UNITS, RESPONSE = [1, 17, 4, 9, 33, 8, 21, 5], [[1], [2], [4], [1, 4], [5]], 3


@pytest.mark.parametrize("by", REMOVALS)
@pytest.mark.parametrize("family", FAMILIES)
def test_removal_is_the_difference_of_whole_forwards(family, by, monkeypatch):
    rng = np.random.default_rng([FAMILIES.index(family), REMOVALS.index(by)])
    model = tiny(family, seed=int(rng.integers(9))).requires_grad_(False)
    total = int(rng.integers(5, 18))
    response = int(rng.integers(1, total - 2))
    ids = rng.integers(3, VOCAB, total).tolist()
    # Single tokens, and sets of any size and order; a deletion leaves the first token.
    first = int(by == "delete")
    places = rng.permutation(np.arange(first, total - 1))
    units = [[int(place)] for place in places[: rng.integers(1, 4)]]
    units += [rng.permutation(places)[: rng.integers(1, len(places) + 1)].tolist() for _ in range(2)]
    target = str(rng.choice(["log_probability", "logit_difference"]))
    neutral = None if rng.random() < 0.5 else int(rng.integers(3, VOCAB))
    monkeypatch.setitem(runs.ROWS, "cpu", int(rng.integers(1, 60)))
    found = removal(model, ids, units, response, Engine("auto", int(rng.integers(1, 9)), target), by, neutral)
    want = removed(model, ids, units, response, by, neutral, target)
    assert found.mode == "packed"
    assert not model.get_input_embeddings()._forward_hooks
    torch.testing.assert_close(found.values, want, rtol=1e-9, atol=1e-9 * float(want.abs().max()))
    for unit, losses in zip(units, found.values, strict=True):
        assert not losses[: max(min(unit) - (total - response) + 1, 0)].any()  # predicted before: exactly zero


@pytest.mark.parametrize("by", REMOVALS)
@pytest.mark.parametrize("family", ["llama", "gemma2", "opt_projected"])
def test_whole_runs_give_the_same(family, by, monkeypatch):
    """The way taken by models that do not run in packs; in float32, as the softmax of their own attention is."""
    model = tiny(family, torch.float32).requires_grad_(False)
    want = removal(model, IDS, UNITS, RESPONSE, Engine(), by)
    monkeypatch.setattr("shiftlens.attribution.removal.exact_removal._takes_packs", lambda _: False)
    found = removal(model, IDS, UNITS, RESPONSE, Engine(), by)
    assert (want.mode, found.mode) == ("packed", "whole")
    torch.testing.assert_close(found.values, want.values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.reading.log_probability, want.reading.log_probability)


@pytest.mark.parametrize("kind", ["bloom", "mamba", "sinks"])
def test_models_that_do_not_run_in_packs_run_whole_texts(kind, caplog):
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2}
    model = {
        "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4)),
        "mamba": lambda: MambaForCausalLM(MambaConfig(**sizes)),
        "sinks": lambda: tiny("llama", torch.float32),
    }[kind]().eval()
    if kind == "sinks":
        own = model.model.layers[0].self_attn.forward
        model.model.layers[0].self_attn.forward = lambda *args, **more: own(*args, **more, s_aux=torch.zeros(4))
    found = removal(model, IDS, UNITS, RESPONSE, Engine())
    assert found.mode == "whole"
    assert "as a whole" in caplog.text
    assert found.values[0].all() and found.values[4, 0] == 0 != found.values[4, 1]


def test_rotations_that_depend_on_the_length_take_whole_texts():
    model = tiny("llama").requires_grad_(False)
    model.config.rope_parameters = {"rope_type": "dynamic", "original_max_position_embeddings": 7}
    assert removal(model, IDS[:7], [[1]], RESPONSE, Engine()).mode == "packed"
    assert removal(model, IDS, [[1]], RESPONSE, Engine()).mode == "whole"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_follows_float32(dtype):
    model, ids, units = tiny("llama", torch.float32), list(range(3, 33)), [[i] for i in range(14)]
    want = removal(model, ids, units, 12, Engine()).values
    found = removal(model.to(dtype), ids, units, 12, Engine())
    assert found.mode == "packed" and found.values.dtype == torch.float32
    assert np.corrcoef(found.values.ravel(), want.ravel())[0, 1] > 0.995


def test_near_certain_tokens_keep_their_digits():
    """Losses of 1e-8 nats, where a float32 log p computed as a difference has no digit."""
    model = tiny("llama", torch.float32)
    with torch.no_grad():
        hidden = model.model(torch.tensor([IDS[:-1]])).last_hidden_state[0, -1]
        model.lm_head.weight[IDS[-1]] = 22 * hidden / hidden.square().sum()
    found = removal(model, IDS, [[1]], 1, Engine())
    want = removed(tiny_copy(model), IDS, [[1]], 1, "zero")
    assert 0 < -found.reading.log_probability < 1e-6
    torch.testing.assert_close(found.values.double(), want, rtol=1e-3, atol=0)


def tiny_copy(model):
    copy = tiny("llama")
    copy.load_state_dict(model.double().state_dict())
    return copy


def test_memory_running_out_halves_the_pack(monkeypatch, caplog):
    model, tried = tiny("llama").requires_grad_(False), []
    want = removal(model, IDS, UNITS, RESPONSE, Engine())
    whole = runs.packed_losses

    def small(model, text, suffixes, units, chunk):
        tried.append(chunk)
        if chunk > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(model, text, suffixes, units, chunk)

    monkeypatch.setattr("shiftlens.attribution.removal.exact_removal.packed_losses", small)
    torch.testing.assert_close(removal(model, IDS, UNITS, RESPONSE, Engine()).values, want.values)
    assert tried == [5, 2, 1]
    assert "memory ran out" in caplog.text


def test_edges():
    model = tiny("llama")
    assert removal(model, IDS, UNITS, 0, Engine()).values.shape == (5, 0)
    assert removal(model, IDS, [], RESPONSE, Engine()).values.shape == (0, RESPONSE)
    assert not removal(model, IDS, [[]], RESPONSE, Engine(), "delete").values.any()
    with pytest.raises(ValueError, match="by=noise: expected one of zero, mean, delete, neutral"):
        removal(model, IDS, UNITS, RESPONSE, Engine(), "noise")
    with pytest.raises(ValueError, match="neutral=97: expected an id"):
        removal(model, IDS, UNITS, RESPONSE, Engine(), "neutral", VOCAB)
    with pytest.raises(ValueError, match="no token is left"):
        removal(model, IDS, [range(5)], RESPONSE, Engine(), "delete")
    with pytest.raises(ValueError, match="sources must lie in"):
        removal(model, IDS, [[7]], RESPONSE, Engine())


def test_packs_hold_every_suffix_once_within_their_bounds():
    rng = np.random.default_rng(0)
    suffixes = [suffix_of(i, [int(at)], 30, 9, delete=False) for i, at in enumerate(rng.integers(0, 29, 40))]
    packs = packs_of(suffixes, 6, 50)
    assert sorted(suffix.unit for pack in packs for suffix in pack) == list(range(40))
    for pack in packs:
        assert len(pack) <= 6
        assert len(pack) == 1 or sum(len(suffix.tokens) for suffix in pack) <= 50


def test_settings_of_the_method():
    words = ["zero embedding", "mean embedding", "token deleted", "neutral token"]
    assert [Ablation(by).words for by in REMOVALS] == [f"exact removal ({text})" for text in words]
    assert Ablation("neutral", 3).identity() == {"by": "neutral", "neutral": 3}
    with pytest.raises(ConfigError, match="by=noise: expected one of zero, mean, delete, neutral"):
        Ablation("noise")
    with pytest.raises(ConfigError, match="only with by=neutral"):
        Ablation("zero", 3)


def _row(model, **more):
    lm = LM(model, tokenizer(), "none", Identity("m", "f", "", "float64"))
    request = Request("k", tuple(IDS[:-RESPONSE]), (1, 2, 4), tuple(IDS[-RESPONSE:]), 5, (), **more)
    return AttributionModule(lm).predict_step([request])[0]


@pytest.mark.parametrize("by", ["zero", "delete"])
def test_a_row_of_ablation_holds_raw_importance_as_other_rows_do(by):
    model = tiny("llama")
    row = _row(model, method=Ablation(by))
    losses = removed(model, IDS, [[1], [2], [4]], RESPONSE, by).numpy()
    np.testing.assert_allclose(row.importance(), -np.expm1(-losses) * row.probability, rtol=1e-5, atol=1e-9)


def test_a_token_that_rises_from_next_to_nothing_stays_finite():
    """p'/p beyond float32: the row must still be finite."""
    model = tiny("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(3000)
    row = _row(model, method=Ablation("zero"))
    assert np.isfinite(row.values).all()
    assert np.isfinite(row.relative()).all() and (row.relative() < -1e37).any()
