"""Private parts of libraries are where the adapters look for them; an upgrade that moves one is named here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny import tiny
from hydra.core.utils import JobReturn, JobStatus
from lightning.pytorch.strategies import ModelParallelStrategy
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import DynamicCache

import shiftlens
from shiftlens.callbacks import Progress
from shiftlens.support.libraries import hydra_parts, lightning_parts, peft_parts, torch_parts, transformers_parts

pytestmark = pytest.mark.quick
MOVED = "{} has moved this part: mend shiftlens/support/libraries/{}_parts.py"


def test_torch_keeps_hooks_where_they_are_looked_for():
    layer = nn.Linear(2, 2)
    before = layer.register_forward_pre_hook(lambda *_: None)
    after = layer.register_forward_hook(lambda *_: None)
    assert len(torch_parts.forward_hooks(layer)) == 2, MOVED.format("torch", "torch")
    assert sum(map(len, torch_parts.hook_tables(layer))) == 2, MOVED.format("torch", "torch")
    before.remove(), after.remove()
    assert torch_parts.forward_hooks(layer) == []


def test_transformers_calls_the_attention_that_is_set():
    model, called = tiny("llama"), []

    def attention(module, query, key, value, *_, **__):
        called.append(query.shape)
        return torch.zeros_like(query.transpose(1, 2)), None

    transformers_parts.register_attention("counted", attention)
    before = transformers_parts.attention_of(model.config)
    transformers_parts.set_attention(model.config, "counted")
    model(torch.tensor([[1, 2, 3]]))
    assert len(called) == model.config.num_hidden_layers, MOVED.format("transformers", "transformers")
    transformers_parts.set_attention(model.config, before)
    model(torch.tensor([[1, 2, 3]]))
    assert len(called) == model.config.num_hidden_layers


def test_transformers_has_the_layers_the_body_and_the_cache():
    said = MOVED.format("transformers", "transformers")
    for family, kind in zip(("llama", "mistral", "qwen2", "qwen3"), transformers_parts.LLAMA_LAYERS, strict=True):
        layer = transformers_parts.body_of(tiny(family)).layers[0]
        assert type(layer) is kind, said
        for name in ("q_proj", "k_proj", "v_proj", "o_proj", "scaling"):
            assert hasattr(layer.self_attn, name), said
        for name in ("gate_proj", "up_proj", "down_proj", "act_fn"):
            assert hasattr(layer.mlp, name), said
        assert hasattr(layer.input_layernorm, "variance_epsilon"), said
        assert hasattr(transformers_parts.body_of(tiny(family)), "rotary_emb"), said
    cache, model = DynamicCache(), tiny("llama")
    model(torch.tensor([[1, 2, 3]]), past_key_values=cache, use_cache=True)
    (keys, values), _ = transformers_parts.cached(cache)
    assert keys.shape == values.shape == (1, 2, 3, 8), said
    assert isinstance(tiny("gpt2").transformer.h[0].attn.c_attn, transformers_parts.Conv1D), said


def test_lightning_keeps_the_trainer_of_a_bar_and_the_size_of_a_mesh():
    bar = Progress()
    bar._trainer = object()
    lightning_parts.forget_trainer(bar)
    assert bar._trainer is None, MOVED.format("Lightning", "lightning")
    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)
    lightning_parts.set_data_parallel_size(strategy, 3)
    assert strategy._data_parallel_size == 3, MOVED.format("Lightning", "lightning")


def test_hydra_keeps_the_error_of_a_job():
    error = ValueError("no")
    failed = JobReturn(status=JobStatus.FAILED)
    failed.return_value = error
    assert hydra_parts.error_of(failed) is error, MOVED.format("Hydra", "hydra")
    done = JobReturn(status=JobStatus.COMPLETED)
    done.return_value = 3
    assert hydra_parts.error_of(done) is None
    assert hydra_parts.BASIC_SWEEPER.endswith("BasicSweeper") and hydra_parts.BASIC_LAUNCHER.endswith(
        "BasicLauncher"
    )


def test_peft_keeps_the_matrices_of_a_layer():
    model = get_peft_model(tiny("llama"), LoraConfig(r=2, target_modules=["q_proj"]))
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    with torch.no_grad():
        for weight in layer.lora_B.parameters():
            weight.normal_()
    (name,) = peft_parts.active_adapters(layer)
    change = peft_parts.lora_change(layer, name)
    torch.testing.assert_close(change, layer.get_delta_weight(name)), MOVED.format("peft", "peft")


def test_no_other_module_reaches_into_a_library():
    """Underscore names of libraries stand in the adapters alone."""
    private = (
        "._forward_hooks", "._forward_pre_hooks", "._backward_hooks", "_attn_implementation_internal", "_internal.",
        "._return_value", "._data_parallel_size", "._name_or_path", "ALL_ATTENTION_FUNCTIONS", "pytorch_utils",
        "models.llama.modeling_llama", "base_model_prefix", ".lora_A", "split_arguments",
    )  # fmt: skip
    root = Path(shiftlens.__file__).parent
    found = [
        f"{path.relative_to(root)}: {name}"
        for path in root.rglob("*.py")
        if "libraries" not in path.parts
        for name in private
        if name in path.read_text(encoding="utf-8")
    ]
    assert found == []
