"""Views of the weights against what the models themselves compute.

Every prompt is a single token: rotary positions are then the identity, and the queries and keys that
reach the attention function are what a view must reproduce, however a family stores its weights.
"""

from __future__ import annotations

import copy
import weakref
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from helpers import tiny as tiny_models
from helpers.tiny import _COMMON, _GATED, FAMILIES, VOCAB, tiny
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    OPTConfig,
    SmolLM3Config,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import repeat_kv

from shiftlens.errors import SourceError
from shiftlens.models import find_layers, load_lm, pair_from_config
from shiftlens.models.families import FAMILIES as KNOWN
from shiftlens.models.families import view

_OPT = {**_COMMON, "pad_token_id": 1, "ffn_dim": 56}
_GEMMA3 = {**_GATED, "head_dim": 16, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
MORE = {
    "gemma3": lambda: Gemma3TextConfig(**_GEMMA3),
    "gemma3_biased": lambda: Gemma3TextConfig(**_GEMMA3, attention_bias=True),
    "smollm3": lambda: SmolLM3Config(**_GATED, no_rope_layers=[1, 0]),
    "opt_350m": lambda: OPTConfig(**_OPT, word_embed_proj_dim=16, do_layer_norm_before=False),
    "opt_bare": lambda: OPTConfig(
        **_OPT, word_embed_proj_dim=32, enable_bias=False, layer_norm_elementwise_affine=False
    ),
}
EVERY = (*FAMILIES, *MORE)
IDS = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(0))[:12, None]
LAYERS = ("DecoderLayer", "GPT2Block", "GPTNeoXLayer")
DOWNS = ("mlp.down_proj", "mlp.c_proj", "dense_4h_to_h", "fc2")


def build(family, dtype=torch.float64):
    with patch.dict(tiny_models._CONFIGS, MORE):
        return tiny(family, dtype)


def capture(model, ids):
    """What flows through each layer for one-token prompts, all as lists over layers of [tokens, ...]."""
    seen = SimpleNamespace(x=[], q=[], k=[], q_raw=[], k_raw=[], inner=[], down=[], written=[], last=[])

    def attention(module, query, key, value, *args, **kwargs):
        # OPT scales queries before it hands them over, the others leave it to the attention function.
        factor = module.head_dim**0.5 if model.config.model_type == "opt" else 1.0
        seen.q.append(query[:, :, 0] * factor)
        seen.k.append(repeat_kv(key, query.shape[1] // key.shape[1])[:, :, 0])
        # One token attends to itself alone, whatever the mask, the scale and the cap.
        return repeat_kv(value, query.shape[1] // value.shape[1]).transpose(1, 2), None

    def into(store):
        return lambda module, args, *rest: store.append(args[0].reshape(len(ids), *args[0].shape[2:]))

    def out_of(store):
        return lambda module, args, output: store.append(output.reshape(len(ids), -1))

    def raw(store):  # [tokens, 1, heads, head] or [tokens, heads, 1, head]
        return lambda module, args: store.append(args[0].reshape(len(ids), -1, args[0].shape[-1]))

    handles = []
    for name, module in model.named_modules():
        if type(module).__name__.endswith(LAYERS):
            handles.append(module.register_forward_pre_hook(into(seen.x)))
        if name.endswith(DOWNS):
            handles.append(module.register_forward_pre_hook(lambda m, a: seen.inner.append(a[0].flatten(0, -2))))
            handles.append(module.register_forward_hook(out_of(seen.down)))
        if name.endswith("post_feedforward_layernorm"):
            handles.append(module.register_forward_hook(out_of(seen.written)))
        if name.endswith("q_norm"):
            handles.append(module.register_forward_pre_hook(raw(seen.q_raw)))
        if name.endswith("k_norm"):
            handles.append(module.register_forward_pre_hook(raw(seen.k_raw)))
    narrowed = getattr(model.get_decoder(), "project_out", None)
    last = narrowed if narrowed is not None else model.get_output_embeddings()
    handles.append(last.register_forward_pre_hook(into(seen.last)))
    model.config._attn_implementation = "sdpa"
    with patch.dict(ALL_ATTENTION_FUNCTIONS._local_mapping, {"sdpa": attention}), torch.no_grad():
        seen.logits = model(ids.to(model.device), use_cache=False).logits[:, 0]
    for handle in handles:
        handle.remove()
    return seen


def hat(x, model):
    """x as the norm ahead of attention leaves it, before gain and bias."""
    config = model.get_decoder().config
    if config.model_type == "opt":
        return nn.functional.layer_norm(x, x.shape[-1:], eps=1e-5) if config.do_layer_norm_before else x
    if config.model_type in ("gpt2", "gpt_neox"):
        eps = getattr(config, "layer_norm_eps", None) or config.layer_norm_epsilon
        return nn.functional.layer_norm(x, x.shape[-1:], eps=eps)
    return x / root_mean_square(x, config.rms_norm_eps)


def root_mean_square(x, eps):
    return (x.square().mean(-1, keepdim=True) + eps).sqrt()


def check_queries_and_keys(model, seen, **tolerance):
    weights = view(model)
    assert len(seen.x) == weights.layers
    for layer, x in enumerate(seen.x):
        found = weights.query_key(layer)
        for sort in "qk":
            matrix, bias = (found.query, found.query_bias) if sort == "q" else (found.key, found.key_bias)
            assert matrix.shape == (weights.heads, weights.width, weights.head)
            want = getattr(seen, sort)[layer]
            if norms := getattr(seen, f"{sort}_raw"):  # the scale that the view leaves out
                scale = root_mean_square(norms[layer], model.get_decoder().config.rms_norm_eps)
                want = want * scale.repeat_interleave(want.shape[1] // scale.shape[1], dim=1)
            got = torch.stack([hat(x, model) @ m + b for m, b in zip(matrix, bias, strict=True)], dim=1)
            torch.testing.assert_close(got, want, **tolerance)


def check_down(model, seen, **tolerance):
    weights = view(model)
    for layer, inner in enumerate(seen.inner):
        got = inner @ weights.down(layer) + weights.down_bias(layer)
        want = seen.down[layer]
        if seen.written:  # normed before it is added to the residual stream
            want = seen.written[layer] * root_mean_square(want, model.get_decoder().config.rms_norm_eps)
        torch.testing.assert_close(got, want, **tolerance)
    assert len(seen.inner) == weights.layers


EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize("family", EVERY)
def test_queries_keys_and_patterns_are_what_the_model_computes(family):
    model = build(family)
    seen = capture(model, IDS)
    check_queries_and_keys(model, seen, **EXACT)
    check_down(model, seen, **EXACT)
    normed = family.startswith(("qwen3", "gemma3")), family.startswith(("gemma2", "gemma3"))
    assert normed == (bool(seen.q_raw), bool(seen.written))


@pytest.mark.parametrize("family", EVERY)
def test_embeddings_are_what_enters_the_first_layer_and_what_makes_the_logits(family):
    model = build(family)
    seen, weights, body = capture(model, IDS), view(model), model.get_decoder()
    position = torch.zeros(32, dtype=torch.float64)
    if family == "gpt2":
        position = body.wpe.weight[0]
    elif family.startswith("opt"):
        position = body.embed_positions.weight[2]  # the first two rows are never used
    torch.testing.assert_close(weights.input_embedding[IDS[:, 0]] + position, seen.x[0], **EXACT)
    output = weights.output_embedding
    logits = seen.last[0] @ output[:].T
    if cap := getattr(model.config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    torch.testing.assert_close(logits, seen.logits, **EXACT)
    # Single rows and blocks are those of the whole.
    assert len(output) == len(output[:]) == VOCAB
    torch.testing.assert_close(output[IDS[:, 0]], output[:][IDS[:, 0]], **EXACT)
    for table in (weights.input_embedding, output):
        blocks = list(table.blocks(5))
        assert {len(block) for block in blocks[:-1]} == {5}
        torch.testing.assert_close(torch.cat(blocks), table[:], **EXACT)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt", "llama"])
def test_only_layer_norms_make_heads_blind_to_the_mean(family):
    found = view(build(family)).query_key(1)
    for matrix in (found.query, found.key):
        blind = matrix.sum(1).abs().max() < 1e-12
        assert blind == (family != "llama")


def test_every_known_type_is_checked_here():
    assert {build(family).config.model_type for family in EVERY} == set(KNOWN)


def test_the_text_part_of_a_model_that_also_sees():
    text = Gemma3TextConfig(**_GEMMA3)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14})
    model = Gemma3ForConditionalGeneration(config)
    weights = view(model)
    assert (weights.family, weights.layers, weights.heads, weights.head) == ("gemma3_text", 2, 4, 16)
    layer = model.model.language_model.layers[1]
    gain = 1 + layer.post_feedforward_layernorm.weight
    torch.testing.assert_close(weights.down(1), (layer.mlp.down_proj.weight.T * gain).detach())


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


def test_a_layer_that_is_not_there():
    with pytest.raises(IndexError):
        view(build("llama")).down(2)


@pytest.mark.slow
def test_a_real_model(real_base):
    model = copy.deepcopy(real_base.model).float()
    weights = view(model)
    assert (weights.layers, weights.heads, weights.width, weights.head) == (30, 9, 576, 64)
    assert weights.input_embedding[:].shape == weights.output_embedding[:].shape == (49152, 576)
    assert weights.down(29).shape == (1536, 576)
    assert weights.query_key(29).key.shape == (9, 576, 64)
    seen = capture(model, torch.tensor([[504], [3575], [28], [260]]))
    check_queries_and_keys(model, seen, rtol=1e-4, atol=1e-4)
    check_down(model, seen, rtol=1e-4, atol=1e-4)
