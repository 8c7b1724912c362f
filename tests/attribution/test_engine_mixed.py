"""Mixed mode: wherever tangents and cotangents meet, the numbers are those of the naive loop, at the rows it promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.naive import naive
from helpers.tiny import FAMILIES, VOCAB, in_float64, tiny
from transformers import AutoModelForCausalLM, BertConfig, DeepseekV3Config, LlamaConfig

from shiftlens.attribution import Costs, Engine, engine
from shiftlens.attribution.llama import packing as llama_rows
from shiftlens.attribution.llama.layer import takes
from shiftlens.attribution.llama.packing import Part, groups
from shiftlens.attribution.llama.tangents import llama_tangents
from shiftlens.attribution.modes import generic
from shiftlens.attribution.modes.mixed import mixed
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.attribution.modes.primal import primal_pass
from shiftlens.attribution.plan.cost import UNMEASURED, best_cut
from shiftlens.attribution.plan.memory import crossing_bytes, kept, need
from shiftlens.attribution.plan.row_counts import carried, crossing_rows, token_rows

TOTAL, RESPONSE = 17, 7
SOURCES = [9, 2, 3, 12, 5, 3]  # out of order, one twice, one in the response


WRITTEN_OUT = ("llama", "llama_biased", "mistral", "qwen2", "qwen3")


@pytest.mark.parametrize(
    ("family", "written_out"), [*((f, False) for f in FAMILIES), *((f, True) for f in WRITTEN_OUT)]
)
def test_every_cut_gives_the_numbers_of_the_naive_loop(family, written_out):
    model = tiny(family).requires_grad_(False)
    assert written_out <= takes(model, TOTAL)
    ids = torch.from_numpy(np.random.default_rng(FAMILIES.index(family)).integers(3, VOCAB, TOTAL))
    with plain_attention(model):
        want, logp = naive(model, ids, torch.tensor(SOURCES), RESPONSE)
    for cut in range(TOTAL):
        # With chunks of 4 and 50 sources and response tokens are several chunks, or one.
        got, reading = mixed(
            model, ids, torch.tensor(SOURCES), RESPONSE, (4, 50)[cut % 2], cut=cut, written_out=written_out
        )
        assert ((got - want).abs().amax(0) <= 1e-9 * want.abs().amax(0)).all(), cut
        torch.testing.assert_close(reading.log_probability, logp, rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", [1, 3])
def test_small_parts_change_nothing(count, monkeypatch):
    """Texts here fit into one part; cut them into many."""
    monkeypatch.setattr(llama_rows, "COUNT", count)
    monkeypatch.setattr(llama_rows, "ROWS", 11)
    model, ids = tiny("qwen3").requires_grad_(False), torch.arange(3, 3 + TOTAL)
    with plain_attention(model):
        want, _ = naive(model, ids, torch.tensor(SOURCES), RESPONSE)
    for cut in (4, 8, 12):
        got, _ = mixed(model, ids, torch.tensor(SOURCES), RESPONSE, 50, cut=cut)
        assert (got - want).abs().max() < 1e-9 * want.abs().max()


def test_a_cut_outside_the_text_is_refused():
    model, ids = tiny("llama").requires_grad_(False), torch.arange(3, 3 + TOTAL)
    for cut in (-1, TOTAL):
        with pytest.raises(ValueError, match=rf"cut must lie in 0\.\.{TOTAL - 1}, got {cut}"):
            mixed(model, ids, torch.tensor([1]), 3, 8, cut=cut)


@pytest.mark.parametrize(("prompt", "response"), [(128, 64), (64, 32), (30, 90), (50, 50)])
def test_the_best_cut_costs_one_row_for_each_number(prompt, response):
    cut, rows = best_cut(UNMEASURED, range(prompt), prompt + response, response)
    assert rows == prompt * response
    assert abs(cut - response) <= 1
    counted = [(n, at) for n in range(prompt) for at in range(n, cut)]
    counted += [(m, at) for m in range(prompt - 1, prompt + response - 1) for at in range(cut, m + 1)]
    assert len(counted) == rows


def test_the_best_cut_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(30):
        total = int(rng.integers(5, 60))
        response = int(rng.integers(1, total))
        sources = rng.choice(total - 1, int(rng.integers(1, total)), replace=False).tolist()
        costs = Costs(*rng.uniform(0.5, 2, 2), *rng.uniform(0, 50, 2))
        room = float(rng.integers(0, 500)) if rng.random() < 0.5 else np.inf
        allowed = {}
        for cut in range(min(sources), total):
            ahead = sum(cut - s for s in sources if s < cut)
            behind = sum(q - cut + 1 for q in range(total - 1 - response, total - 1) if q >= cut)
            assert [part[cut] for part in carried(sources, total, response)] == [ahead, behind]
            kept = sum(cut - s for s in sources if s < cut)  # at least; parts keep somewhat more
            assert crossing_rows(sources, total, 1)[cut] == kept <= crossing_rows(sources, total, 16)[cut]
            if crossing_rows(sources, total, 16)[cut] <= room:
                time = costs.forward_row * ahead + costs.reverse_row * behind
                allowed[cut] = time + costs.forward_fixed * (ahead > 0) + costs.reverse_fixed * (behind > 0)
        cut, time = best_cut(costs, sources, total, response, crossing_rows(sources, total, 16) <= room)
        assert allowed[cut] == pytest.approx(time)
        assert time == pytest.approx(min(allowed.values()))
        if room == np.inf:
            forward = costs.forward_fixed + costs.forward_row * token_rows("forward", sources, total, response)
            assert time <= forward + 1e-9


def test_what_is_kept_at_the_cut_is_what_the_estimate_says():
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    sources, cut = sorted(np.random.default_rng(1).choice(60, 40, replace=False).tolist()), 70
    with plain_attention(model), torch.no_grad():
        primal = primal_pass(model, torch.arange(90) % VOCAB, 15, "log_probability")
        hidden, crossings = llama_tangents(model, primal, sources, cut, hidden=False, crossing=True)
    assert hidden is None
    kept = sum(each.nbytes for crossing in crossings for each in crossing.moved)
    assert kept == crossing_rows(sources, 90, llama_rows.COUNT)[cut] * crossing_bytes(config, 4)


def test_a_small_budget_moves_the_cut_and_keeps_the_numbers():
    model, ids = tiny("llama").requires_grad_(False), list(range(3, 63))
    sources = list(range(30))
    want = Engine("naive").explain(model, ids, sources, 30).values
    for budget in (1000, 2 * 10**6, 10**9):
        found = Engine("mixed", memory_budget=budget).explain(model, ids, sources, 30)
        assert found.mode == "mixed"
        assert ((found.values - want).abs().amax(0) / want.abs().amax(0)).max() < 1e-9


def test_auto_keeps_to_the_budget_behind_a_template():
    """A cut at the first source keeps no keys, but where layers are not written out the graph of all behind it."""
    model = tiny("gpt2").requires_grad_(False)
    for sources in (range(60), range(10, 70)):
        assert Engine(memory_budget=1000).choose(model, sources, 100, 20) == "forward"
        assert Engine(memory_budget=10**9).choose(model, sources, 100, 20) == "mixed"


def test_a_chunk_has_what_the_cut_leaves(monkeypatch):
    model, ids, chunks = tiny("llama").requires_grad_(False), [3 + i % 80 for i in range(96)], []
    config, sources = model.config, list(range(50))
    fixed = need(config, 8, "mixed", 96, 40, written_out=True)
    whole = mixed

    def watched(*args, cut, variant):
        chunks.append((args[4], int(kept(config, 8, sources, 96, True, llama_rows.COUNT)[cut])))
        return whole(*args, cut=cut, variant=variant)

    monkeypatch.setitem(engine._ENGINES, "mixed", watched)
    for more in (200_000, 1_000_000):
        Engine("mixed", memory_budget=fixed.fixed + more).explain(model, ids, sources, 40)
        chunk, at_cut = chunks[-1]
        assert at_cut <= more / 2
        assert chunk * fixed.each + at_cut <= more < (chunk + 1) * fixed.each + at_cut
    assert chunks[0] < chunks[1]


def test_a_model_that_is_more_than_its_body_is_left_to_reverse():
    """BERT's decoder has a dense layer between the hidden states that its body returns and the output layer."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40,
        is_decoder=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval().requires_grad_(False)
    ids, sources = torch.arange(3, 23), torch.arange(8)
    want, _ = naive(model, ids, sources, 8)
    found = Engine().explain(model, ids.tolist(), sources.tolist(), 8)
    assert found.mode == "reverse"
    assert (found.values - want).abs().max() < 1e-9 * want.abs().max()
    for mode in ("forward", "mixed"):
        with pytest.raises(ValueError, match=r"BertLMHeadModel.*saliency\.mode=reverse"):
            Engine(mode).explain(model, ids.tolist(), sources.tolist(), 8)


def test_keys_and_values_may_have_heads_of_different_size():
    torch.manual_seed(0)
    config = DeepseekV3Config(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, kv_lora_rank=12, q_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=8,
        v_head_dim=6, first_k_dense_replace=2,
    )  # fmt: skip
    model = in_float64(AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False))
    ids, sources = torch.arange(3, 23), torch.arange(8)
    with plain_attention(model):
        want, _ = naive(model, ids, sources, 8)
    for cut in (4, 8, 13):
        got, _ = mixed(model, ids, sources, 8, 5, cut=cut)
        assert (got - want).abs().max() < 1e-9 * want.abs().max()
    with torch.no_grad(), plain_attention(model):
        primal = primal_pass(model, ids, 8, "log_probability")
        _, crossings = generic.tangents(model, primal, [0, 1], 9, crossing=True)
    size = sum(each.nbytes for each in crossings[0].moved)
    assert size <= crossing_rows([0, 1], 20, 16)[9] * crossing_bytes(config, 8)


@pytest.mark.parametrize("first", [torch.OutOfMemoryError, NotImplementedError])
@pytest.mark.parametrize("second", [torch.OutOfMemoryError, NotImplementedError])
def test_auto_tries_every_way(first, second, monkeypatch):
    model, ids = tiny("llama").requires_grad_(False), list(range(3, 33))
    want = Engine("reverse").explain(model, ids, [1, 2, 3], 10).values

    def fail(error):
        def run(*_, **__):
            raise error

        return run

    monkeypatch.setitem(engine._ENGINES, "mixed", fail(first))
    monkeypatch.setitem(engine._ENGINES, "forward", fail(second))
    assert Engine().choose(model, [1, 2, 3], 30, 10) == "mixed"
    found = Engine().explain(model, ids, [1, 2, 3], 10)
    assert found.mode == "reverse"
    assert torch.equal(found.values, want)
    refused = {mode for mode, e in (("mixed", first), ("forward", second)) if e is NotImplementedError}
    assert engine._REFUSED.get(model, set()) == refused  # what only ran out of memory may fit another text


def test_parts_hold_each_reached_place_once():
    rng = np.random.default_rng(0)
    for _ in range(20):
        count = int(rng.integers(1, 6))
        reach = [tuple(sorted(rng.choice(12, 2, replace=False).tolist())) for _ in range(count)]
        at = [first if rng.random() < 0.5 else end - 1 for first, end in reach]
        tips = torch.randn(count, 3)
        part = Part(reach, tips, at)
        assert len(part.rows) == sum(end - first for first, end in reach)
        grid = part.grid(part.rows)
        want = torch.zeros_like(grid)
        for column, place in enumerate(at):
            want[place - part.low, column] = tips[column]
        assert torch.equal(grid, want)
        assert torch.equal(part.flat(grid), part.rows)
        # Pieces name the place of every row.
        mark = part.grid(torch.ones(len(part.rows), 1)) * torch.arange(part.low, part.high)[:, None, None]
        for piece, places in part.pieces(part.flat(mark)):
            where = torch.arange(part.high)[places]
            assert torch.equal(piece, where[:, None, None].expand_as(piece).to(piece))


def test_groups_are_whole_and_bounded():
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = rng.integers(1, 900, int(rng.integers(0, 60))).tolist()
        found = list(groups(lengths))
        assert [x for span in found for x in lengths[span]] == lengths
        for span in found:
            some = lengths[span]
            small = sum(some) <= llama_rows.ROWS and len(some) * max(some) <= 2 * llama_rows.ROWS
            assert len(some) == 1 or (len(some) <= llama_rows.COUNT and small)
    assert list(groups([2600, *[2] * 5])) == [slice(0, 2), slice(2, 6)]
