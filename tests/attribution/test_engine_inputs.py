"""Engines on inputs and models that are seldom seen: odd shapes, hooks, adapters, offloaded layers, errors."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from helpers.naive import naive
from helpers.tiny import VOCAB, in_float64, tiny
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from shiftlens.attribution import Costs, Engine, engine
from shiftlens.attribution.llama import layer as llama_layer
from shiftlens.attribution.llama.packing import COUNT
from shiftlens.attribution.modes import plain_attention as attention
from shiftlens.attribution.modes.forward import forward
from shiftlens.attribution.modes.mixed import mixed
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.attribution.modes.reverse import reverse
from shiftlens.attribution.plan.cost import cheapest
from shiftlens.attribution.plan.memory import kept, need
from shiftlens.attribution.plan.row_counts import token_rows
from shiftlens.errors import ShiftLensError

SMALL: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 32}
WINDOW = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}
ODD = {  # configuration, longest text whose layers are written out
    "one key head, wide heads, biases": (
        LlamaConfig(
            **SMALL | {"num_attention_heads": 8, "num_key_value_heads": 1}, head_dim=20, attention_bias=True
        ),
        99,
    ),
    "narrow heads, tied, another activation": (
        LlamaConfig(**SMALL, head_dim=6, tie_word_embeddings=True, mlp_bias=True, hidden_act="relu2"),
        99,
    ),
    "rotations with a scale": (LlamaConfig(**SMALL, rope_parameters=YARN), 99),
    "windows in some layers": (Qwen2Config(**SMALL, **WINDOW), 9),
    "a window that is not used": (Qwen2Config(**SMALL, use_sliding_window=False, sliding_window=5), 99),
    "windows and norms of heads": (Qwen3Config(**SMALL, **WINDOW, head_dim=8, attention_bias=True), 9),
    "one window, wide heads": (MistralConfig(**SMALL, sliding_window=9, head_dim=12), 9),
}
TEXTS = [  # total, response, sources, chunk
    (2, 1, [0], 500),  # one token each
    (9, 4, [3, 3, 0, 7, 5], 2),  # twice the same, out of order, a response token
    (10, 9, [8, 0], 500),
    (36, 5, [25, 30, 22, 26], 3),  # a long template before the prompt
]


def odd(name: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(ODD[name][0], dtype=torch.float64)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_((0.3 if parameter.ndim == 1 else 0.2) * torch.randn_like(parameter))
    return in_float64(model).eval().requires_grad_(False)


def draw(total: int) -> Tensor:
    return torch.randint(3, VOCAB, (total,), generator=torch.Generator().manual_seed(total))


def truth(model: Any, ids: Tensor, sources: list[int], response: int, target: str = "log_probability") -> Tensor:
    with plain_attention(model):
        return naive(model, ids, torch.tensor(sources), response, target)[0]


def check(got: Tensor, want: Tensor, tolerance: float = 1e-9) -> None:
    """Equal within a tolerance of each column's largest entry; columns without influence are zero."""
    assert ((got - want).abs().amax(0) <= tolerance * want.abs().amax(0)).all()


def is_as_found(model: Any) -> bool:
    hooks = [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    return not hooks and model.config._attn_implementation == "sdpa" and torch.is_grad_enabled()


@pytest.mark.parametrize("name", ODD)
def test_odd_shapes(name):
    model, longest = odd(name), ODD[name][1]
    assert llama_layer.takes(model, longest)
    assert not llama_layer.takes(model, longest + 1) or longest == 99
    for total, response, sources, chunk in TEXTS:
        ids, at = draw(total), torch.tensor(sources)
        target = "log_probability" if total % 2 else "logit_difference"
        want = truth(model, ids, sources, response, target)
        assert want.abs().max() > 0
        for written_out in (True, False):
            check(forward(model, ids, at, response, chunk, target, written_out=written_out)[0], want)
            check(reverse(model, ids, at, response, chunk, target, written_out=written_out)[0], want)
        # A budget below any need still gives one derivative at a time.
        found = Engine(target=target, memory_budget=1000).explain(model, ids.tolist(), sources, response)
        check(found.values, want)


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse", "mixed", "naive"])
def test_what_cannot_be_explained_is_refused_and_not_blamed_on_the_model(mode):
    model, ids = tiny("llama"), list(range(3, 13))
    for sources, response, said in (([-1], 3, "sources"), ([1, 9], 3, r"got \[9\]"), ([1], 10, "response")):
        with pytest.raises(ValueError, match=said):
            Engine(mode).explain(model, ids, sources, response)
    with pytest.raises(ValueError, match=r"response .*; chunk .*; sources"):  # all at once
        Engine(mode, 0).explain(model, ids, [9], 11)
    with pytest.raises((IndexError, RuntimeError), match="out of (range|bounds)"):  # an id that no embedding has
        Engine(mode).explain(model, [*ids, VOCAB, 3], [1], 3)
    assert model not in engine._REFUSED
    assert is_as_found(model)


@pytest.mark.parametrize(
    ("run", "place", "part", "written_out"),
    [
        (forward, "mixed.generic", "tangents", False),
        (forward, "mixed", "llama_tangents", True),
        (reverse, "reverse", "at_logits", False),
        (reverse, "mixed", "llama_cotangents", True),
    ],
)
def test_an_error_midway_leaves_the_model_as_it_was(run, place, part, written_out, monkeypatch):
    model = tiny("llama").train()

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(f"shiftlens.attribution.modes.{place}.{part}", fail)
    with pytest.raises(torch.OutOfMemoryError):
        run(model, draw(12), torch.tensor([1, 4]), 3, 2, written_out=written_out)
    assert is_as_found(model)
    assert model.training


def test_another_model_in_plain_attention_is_not_called_a_lack_of_memory(monkeypatch, caplog):
    plain = attention._weights
    monkeypatch.setattr(attention, "_weights", lambda *args: 2 * plain(*args))
    with pytest.raises(ShiftLensError, match="other logits"):
        Engine().explain(tiny("llama"), list(range(3, 12)), [1], 3)
    assert "memory" not in caplog.text


def test_a_hook_inside_a_layer_is_not_passed_over():
    model, ids, sources = tiny("llama").requires_grad_(False), draw(14), [1, 2, 5]
    unchanged = truth(model, ids, sources, 4)
    handle = model.model.layers[0].mlp.register_forward_hook(lambda module, args, out: 0.1 * out)
    want = truth(model, ids, sources, 4)
    assert (want - unchanged).abs().max() > 0.01 * want.abs().max()
    for mode in ("forward", "reverse", "mixed"):
        check(Engine(mode).explain(model, ids.tolist(), sources, 4).values, want)
    handle.remove()
    model(ids[None], output_hidden_states=True, output_attentions=True)  # leaves hooks that only record
    assert any(m._forward_hooks for m in model.modules())
    assert llama_layer.takes(model, 14)
    check(Engine("reverse").explain(model, ids.tolist(), sources, 4).values, unchanged)


def test_adapters_are_differentiated_through_and_merged_ones_written_out():
    model, ids, sources = tiny("llama").requires_grad_(False), draw(15), [2, 3, 6]
    bare = truth(model, ids, sources, 4)
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    )
    inner = adapted.double().eval().base_model.model
    want = truth(inner, ids, sources, 4)
    assert (want - bare).abs().max() > 0.01 * want.abs().max()
    assert not llama_layer.takes(inner, 15)
    for mode in ("forward", "reverse", "mixed"):
        check(Engine(mode).explain(inner, ids.tolist(), sources, 4).values, want)
    merged = adapted.merge_and_unload()
    assert llama_layer.takes(merged, 15)
    for mode in ("forward", "reverse", "mixed"):
        check(Engine(mode).explain(merged, ids.tolist(), sources, 4).values, want)


def test_a_model_spread_over_devices_is_never_written_out(tmp_path):
    ids, sources = draw(15), [2, 3, 6]
    model = tiny("llama").requires_grad_(False)
    want = truth(model, ids, sources, 4)
    places = dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb"), "cpu")
    places |= {"lm_head": "cpu", "model.layers.1": "disk"}
    model = dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path))
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu", "meta"}
    assert not llama_layer.takes(model, 15)
    assert Engine().choose(model, sources, 15, 4) == "reverse"
    check(Engine().explain(model, ids.tolist(), sources, 4).values, want)
    assert not llama_layer.takes(tiny("llama").to("meta"), 15)  # offloaded as a whole


def test_rows_behind_a_template_are_counted_where_they_are_carried():
    total, response, sources = 60, 20, range(30, 36)
    for start, written_out in ((0, False), (30, True)):
        rows = [(y, at) for y in range(total - response, total) for at in range(total) if start <= at < y]
        assert token_rows("reverse", sources, total, response, written_out) == len(rows)
    # Between the two counts lies the choice of an engine: a cut at the first source spares the template in any family.
    some = Costs(3.0, 1.0, 200.0, 200.0)
    assert [cheapest(some, sources, total, response, w) for w in (False, True)] == ["mixed", "reverse"]
    assert token_rows("reverse", [50], total, response, True) == sum(range(10))  # 9 are predicted behind it


class Peak(TorchDispatchMode):
    """Largest number of bytes of tensors that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.live = self.top = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)}
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.sizes and key not in given:
                    self.sizes[key] = storage.nbytes()
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._gone, key)
        self.top = max(self.top, self.live)
        return out

    def _gone(self, key: int) -> None:
        self.live -= self.sizes.pop(key)


@pytest.mark.parametrize(
    "shape", [{}, {"num_attention_heads": 16, "num_key_value_heads": 16}, {"vocab_size": 4000}]
)
@pytest.mark.parametrize("mode", ["forward", "reverse", "mixed"])
def test_what_is_needed_is_above_what_is_used_and_of_its_size(mode, shape):
    """The estimate must not promise what does not fit, nor be so careful that chunks become small."""
    wide = {"hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 8, "num_key_value_heads": 4}
    config = LlamaConfig(**SMALL | wide | shape)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    total, count = 100, 40
    for response in (count, total - count):
        ids, sources = draw(total) % 90, torch.arange(count if mode == "forward" else total - response)
        run = {"forward": forward, "reverse": reverse, "mixed": partial(mixed, cut=response)}[mode]
        with Peak() as used:
            run(model, ids, sources, response, count)
        needed = need(config, 4, mode, total, response, written_out=True)
        most = needed.fixed + count * needed.each
        if mode == "mixed":
            most += int(kept(config, 4, sources.tolist(), total, True, COUNT)[response])
        assert most > used.top > most / 6
