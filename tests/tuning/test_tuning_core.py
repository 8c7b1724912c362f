"""Dialogues, the plan of batches, the loss, LoRA: numbers against the plainest statement of them."""

from __future__ import annotations

import copy
import random
from collections import Counter

import pytest
import torch
from helpers.tiny import FAMILIES, VOCAB, tiny, tokenizer
from torch.nn.functional import log_softmax

from shiftlens.errors import ConfigError, PromptError
from shiftlens.prompts.encode import encode
from shiftlens.prompts.schema import Prompt
from shiftlens.tuning.batches import TrainBatches, held_out_batches, packed, padded
from shiftlens.tuning.examples import Example, examples
from shiftlens.tuning.lora import plain_model, with_lora
from shiftlens.tuning.loss import check_packing, token_losses
from shiftlens.tuning.plan import plan
from shiftlens.tuning.tune_options import TuneOptions, tune_options

pytestmark = pytest.mark.quick


def some(n: int, seed: int = 0, longest: int = 20) -> list[Example]:
    draw = random.Random(seed)
    lengths = [draw.randint(4, longest) for _ in range(n)]
    return [Example(tuple(draw.randrange(3, VOCAB) for _ in range(k)), draw.randint(0, k - 2)) for k in lengths]


def plainly(model: torch.nn.Module, example: Example) -> list[torch.Tensor]:
    """Each response token's loss, from all logits of the dialogue read alone."""
    logits = model(torch.tensor([list(example.ids)])).logits[0]
    return [
        -log_softmax(logits[place - 1], -1)[example.ids[place]]
        for place in range(len(example.ids))
        if place >= example.prompt and place > 0
    ]


def prompt(name: str, text: str, **more: str) -> Prompt:
    return Prompt(name, text, ((0, 5),), **more)


def test_a_dialogue_is_the_prompt_as_analysed_the_answer_and_an_end():
    words = tokenizer()
    ask = prompt("a", "write the words", reference="in order", response="me and him")
    (found,) = examples([ask], words, "none")
    fed = encode(ask, words, "none").input_ids
    assert found.ids[: found.prompt] == fed
    assert words.decode(found.ids[found.prompt : -1]) == "me and him"  # the response goes before the reference
    assert found.ids[-1] == words.eos_token_id
    (other,) = examples([prompt("b", "write the words", reference="in order")], words, "Q: {prompt}\nA: ")
    assert words.decode(other.ids[other.prompt : -1]) == "in order"
    assert words.decode(other.ids[: other.prompt]) == "Q: write the words\nA: "


def test_all_faults_of_the_dialogues_are_told_at_once():
    asks = [
        prompt("a", "write the words"),
        prompt("b", "write the words", reference="in order"),
        prompt("c", "write the words " * 20, reference="in order"),
    ]
    with pytest.raises(PromptError) as caught:
        examples(asks, tokenizer(), "none", max_tokens=30, where="mine.jsonl")
    assert [(problem.row, problem.field) for problem in caught.value.problems] == [(1, "response"), (3, "text")]
    assert "mine.jsonl: 2 problems" in str(caught.value)


@pytest.mark.parametrize("batching", ["grouped", "packed"])
@pytest.mark.parametrize(
    ("n", "batch", "accumulate", "ranks"), [(13, 4, 1, 1), (13, 4, 2, 2), (70, 6, 3, 2), (5, 8, 2, 3)]
)
def test_every_pass_takes_every_example_once(n, batch, accumulate, ranks, batching):
    data = some(n)
    options = TuneOptions(epochs=3, batch=batch, accumulate=accumulate, batching=batching, seed=5)
    steps = plan(data, options, ranks)
    per_pass = -(-n // batch)
    assert len(steps) == 3 * per_pass
    for start in range(0, len(steps), per_pass):
        taken = Counter(index for step in steps[start : start + per_pass] for index in step.indices)
        assert taken == Counter(range(n))
    for step in steps:
        assert len(step.shares) == accumulate
        assert all(len(micro) == ranks for micro in step.shares)
        assert step.targets == sum(len(data[i].ids) - max(data[i].prompt, 1) for i in step.indices)
        assert len(step.indices) <= batch


def test_the_plan_is_a_function_of_seed_and_lengths_and_ranks_only_split_it():
    data = some(30)
    options = TuneOptions(epochs=2, batch=6, seed=1)
    first = plan(data, options)
    assert plan(list(data), options) == first
    assert plan(data, options.replace(seed=2)) != first
    split = plan(data, options.replace(accumulate=2), ranks=2)
    assert [sorted(step.indices) for step in split] == [sorted(step.indices) for step in first]
    assert [sorted(step.indices) for step in first[:5]] != [sorted(step.indices) for step in first[5:]]
    # A shorter run is the beginning of a longer one of the same length of pass.
    assert plan(data, options.replace(steps=3)) == first[:3]


def test_dialogues_of_like_length_meet():
    data = some(160, longest=60)
    lengths = [[len(data[i].ids) for i in step.indices] for step in plan(data, TuneOptions(batch=4, epochs=1))]
    waste = sum(max(row) * len(row) - sum(row) for row in lengths) / sum(map(sum, lengths))
    shuffled = random.Random(0).sample(range(160), 160)
    blind = [[len(data[i].ids) for i in shuffled[k : k + 4]] for k in range(0, 160, 4)]
    waste_blind = sum(max(row) * len(row) - sum(row) for row in blind) / sum(map(sum, blind))
    assert waste < waste_blind / 3


def test_too_many_ranks_are_refused():
    with pytest.raises(ConfigError, match=r"3 ranks for 2 training examples.*trainer\.devices=2"):
        plan(some(2), TuneOptions(), ranks=3)
    with pytest.raises(ConfigError, match=r"tune\.batch=2 .* 3 ranks"):
        plan(some(9), TuneOptions(batch=2), ranks=3)


def test_a_rank_without_work_still_takes_part_and_adds_nothing():
    data = some(5)
    steps = plan(data, TuneOptions(batch=3, epochs=1, accumulate=3), ranks=2)
    model = tiny("llama").requires_grad_(True)
    batches = [list(TrainBatches(data, steps, rank)) for rank in range(2)]
    assert len(batches[0]) == len(batches[1]) == 6
    idle = [batch for rank in batches for batch in rank if len(batch.targets) == 0]
    assert len(idle) == 12 - 5
    (token_losses(model, idle[0]).sum() * idle[0].share).backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())
    shares = [held_out_batches(data, 2, rank, 2) for rank in range(2)]
    assert [len(share) for share in shares] == [2, 2]
    assert sum(len(batch.targets) for share in shares for batch in share) == sum(e.targets for e in data)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_of_padded_and_packed_batches_are_those_of_single_dialogues(family):
    model = tiny(family).requires_grad_(True)
    data = some(4, seed=3, longest=14)  # longer than the windows of 6
    single = [loss for example in data for loss in plainly(model, example)]
    torch.stack(single).mean().backward()
    wanted = [weight.grad.clone() for weight in model.parameters()]
    # Gemma 2 caps its attention scores; the library then takes their softmax in float32.
    near = 1e-5 if family == "gemma2" else 1e-9
    batches = [padded(data)]
    if family.startswith("opt"):  # its attention looks across the borders
        with pytest.raises(ConfigError, match=r"tune\.batching=packed.*grouped"):
            check_packing(model, VOCAB)
    else:
        check_packing(model, VOCAB)
        batches.append(packed(data))
    for batch in batches:
        model.zero_grad()
        losses = token_losses(model, batch)
        torch.testing.assert_close(losses, torch.stack(single), rtol=near, atol=near)
        losses.mean().backward()
        for weight, want in zip(model.parameters(), wanted, strict=True):
            torch.testing.assert_close(weight.grad, want, rtol=near, atol=near)


def test_a_model_that_mixes_packed_dialogues_is_refused():
    model = tiny("llama")
    whole = model.forward
    model.forward = lambda position_ids=None, **given: whole(**given)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"tune\.batching=packed.*grouped"):
        check_packing(model, VOCAB)


def test_the_head_is_computed_for_response_tokens_only():
    model, seen = tiny("llama"), []
    model.lm_head.register_forward_hook(lambda layer, args, out: seen.append(tuple(out.shape)))
    token_losses(model, padded([Example(tuple(range(3, 30)), 24), Example(tuple(range(3, 20)), 15)]))
    assert seen == [(1, 5, VOCAB)]
    assert not model.lm_head._forward_pre_hooks


def test_bfloat16_products_stay_near():
    model, data = tiny("llama", torch.float32), some(6)
    exact = token_losses(model, padded(data))
    with torch.autocast("cpu", torch.bfloat16):
        near = token_losses(model, padded(data))
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    assert (near.mean() - exact.mean()).abs() < 0.05 * exact.mean()


def moved(model: torch.nn.Module) -> torch.nn.Module:
    """LoRA weights away from their start, where they do nothing."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.add_(0.2 * torch.randn_like(weight))
    return model


@pytest.mark.parametrize("family", ["llama", "llama_biased", "gpt2", "phi3", "gemma2", "opt_projected"])
def test_a_plain_model_is_what_lora_made_of_it_and_leaves_it_alone(family):
    options = TuneOptions(rank=3, alpha=5.0, dropout=0.5)
    model = moved(with_lora(tiny(family), options)).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    plain = plain_model(model)
    ids = torch.randint(3, VOCAB, (2, 9))
    with torch.no_grad():
        wanted = copy.deepcopy(model).eval()
        torch.testing.assert_close(plain(ids).logits, wanted(ids).logits, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(plain(ids).logits, wanted.merge_and_unload()(ids).logits, rtol=1e-9, atol=1e-9)
    assert not any("lora" in name for name, _ in plain.named_modules())
    assert not plain.training
    assert not any(weight.requires_grad for weight in plain.parameters())
    assert model.training
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    # What LoRA does not touch is shared, not copied.
    own = model.get_base_model()
    assert plain.get_input_embeddings().weight.data_ptr() == own.get_input_embeddings().weight.data_ptr()
    assert plain.get_output_embeddings().weight.data_ptr() == own.get_output_embeddings().weight.data_ptr()


def test_lora_starts_from_its_seed_and_changes_nothing_at_first():
    options = TuneOptions(rank=2)
    torch.manual_seed(1)
    one = with_lora(tiny("llama"), options)
    torch.manual_seed(2)
    two = with_lora(tiny("llama"), options)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    other = with_lora(tiny("llama"), options.replace(seed=7))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    ids = torch.arange(3, 12)[None]
    assert torch.equal(plain_model(one)(ids).logits, tiny("llama")(ids).logits)


def test_lora_targets_that_cannot_be_used_are_refused():
    with pytest.raises(ConfigError, match=r"tune\.targets=.*q_proj"):
        with_lora(tiny("llama"), TuneOptions(targets=("no_such_layer",)))
    with pytest.raises(ConfigError, match="lm_head"):
        with_lora(tiny("llama_biased"), TuneOptions(targets=("lm_head", "q_proj")))


def test_all_faults_of_the_settings_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        tune_options(
            {"method": "soft", "batch": 0, "rate": 0, "warmup": 1, "lr_find": "yes", "start": "base"}, seed=-1
        )
    told = str(caught.value).splitlines()
    keys = ("tune.method", "tune.batch", "tune.rate", "tune.warmup", "tune.lr_find", "seed")
    assert [any(line.startswith(key + "=") for line in told) for key in keys] == [True] * 6
    assert len(told) == 6
    with pytest.raises(ConfigError, match=r"tune\.lr is not known"):
        tune_options({"lr": 1}, seed=0)
