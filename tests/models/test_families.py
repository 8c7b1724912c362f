"""Views of the weights against what the models themselves compute.

Every prompt is a single token: rotary positions are then the identity, and the queries and keys that
reach the attention function are what a view must reproduce, however a family stores its weights.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from helpers.more_families import GEMMA3 as _GEMMA3
from helpers.more_families import MORE, build
from helpers.tiny import FAMILIES, VOCAB
from torch import nn
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import repeat_kv

from shiftlens.models.families import FAMILIES as KNOWN
from shiftlens.models.families import view

pytestmark = pytest.mark.quick

EVERY = (*FAMILIES, *MORE)
IDS = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(0))[:12, None]
LAYERS = ("DecoderLayer", "GPT2Block", "GPTNeoXLayer")
DOWNS = ("mlp.down_proj", "mlp.c_proj", "dense_4h_to_h", "fc2")


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
