"""Weights as a model stores them: half precision, a merged adapter, nothing kept, and what is refused by name."""

from __future__ import annotations

import weakref

import pytest
import torch
from helpers.more_families import build
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
)

from shiftlens.errors import SourceError
from shiftlens.models import find_layers, load_lm, pair_from_config
from shiftlens.models.families import view


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "gemma"])
def test_half_precision_is_widened_before_anything_is_folded(family):
    half, weights = build(family, torch.bfloat16), view(build(family, torch.bfloat16))
    wide = view(half.float())
    for layer in range(2):
        got, want = weights.query_key(layer), wide.query_key(layer)
        for name in ("query", "key", "query_bias", "key_bias"):
            assert getattr(got, name).dtype == torch.float32
            assert torch.equal(getattr(got, name), getattr(want, name))
        assert torch.equal(weights.down(layer), wide.down(layer))
    assert torch.equal(weights.output_embedding[:], wide.output_embedding[:])
    # Gemma rounds the factor of its embeddings to the weights' type.
    torch.testing.assert_close(weights.input_embedding[:], wide.input_embedding[:], rtol=2**-8, atol=0)


def test_nothing_is_kept_and_nothing_wants_a_gradient():
    model = build("llama_biased", torch.float32)
    weights = view(model)
    found = weights.query_key(0)
    assert not any(tensor.requires_grad for tensor in (found.query, found.key_bias, weights.down(0)))
    assert weights.down(0).data_ptr() == model.model.layers[0].mlp.down_proj.weight.data_ptr()
    kept = weakref.ref(found.query)
    del found
    assert kept() is None


def test_a_merged_adapter_shows_as_its_product(pair, tmp_path):
    torch.manual_seed(0)
    chosen = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(pair[0]), chosen)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    model.save_pretrained(tmp_path / "adapter")
    loaded = pair_from_config(
        {"base": str(pair[0]), "tuned": str(pair[0]), "adapter": str(tmp_path / "adapter")}, tmp_path
    ).tuned
    merged = view(load_lm(loaded, find_layers(loaded, tmp_path), "none", tmp_path).model)
    layer = model.get_base_model().model.layers[1]
    q, down = (
        part.base_layer.weight + 6 / 2 * part.lora_B["default"].weight @ part.lora_A["default"].weight
        for part in (layer.self_attn.q_proj, layer.mlp.down_proj)
    )
    for head, got in enumerate(merged.query_key(1).query):
        want = (q[8 * head : 8 * head + 8] * layer.input_layernorm.weight).T
        torch.testing.assert_close(got, want.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merged.down(1), down.T.detach(), rtol=1e-5, atol=1e-5)


class Packed(nn.Linear):
    """Stands for a quantized layer, which is a subclass of Linear in the known libraries."""


def pack(model):
    model.model.layers[1].self_attn.k_proj = Packed(32, 16)


def pack_weight(model):
    weight = nn.Parameter(torch.zeros(32, 56, dtype=torch.int8), requires_grad=False)
    model.model.layers[0].mlp.down_proj.weight = weight


class Quantized(torch.Tensor):
    """Stands for a weight quantized in place, which leaves the layer and changes the tensor's class."""


def pack_tensor(model):
    head = model.lm_head
    head.weight = nn.Parameter(head.weight.detach().as_subclass(Quantized), requires_grad=False)


def adapt(model):
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))


def offload(model):
    model.to("meta")


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (pack, r"not so in model\.layers\.1\.self_attn\.k_proj \(Packed\)\. Load"),
        (pack_weight, r"not so in model\.layers\.0\.mlp\.down_proj \(Linear\)\. Load"),
        (pack_tensor, r"not so in lm_head \(Linear\)\. Load"),
        (adapt, r"layers\.0\.self_attn\.q_proj \(Linear\), model\.layers\.1\.self_attn\.q_proj \(Linear\)\. Load"),
        (offload, r"model\.embed_tokens \(Embedding\), lm_head \(Linear\), .* and 5 more\. Load"),
    ],
)
def test_weights_that_are_not_plain_are_refused_by_name(spoil, match):
    model = build("llama")
    spoil(model)
    with pytest.raises(SourceError, match=match):
        view(model)


def test_projected_embeddings_must_be_plain_too():
    model = build("opt_projected")
    model.get_decoder().project_out = Packed(32, 16)
    with pytest.raises(SourceError, match=r"model\.decoder\.project_out \(Packed\)"):
        view(model)


def test_an_unknown_family_names_the_known_ones():
    model = BloomForCausalLM(BloomConfig(vocab_size=11, hidden_size=8, n_layer=1, n_head=2))
    with pytest.raises(SourceError, match=r"bloom model cannot be viewed; known families: llama, mistral.*opt"):
        view(model)
