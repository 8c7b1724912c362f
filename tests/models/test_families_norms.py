"""Norms of families that a user adds: each is folded as it acts on vectors, or refused by name.

``test_families.py`` checks the families of ShiftLens. The view here is what a user writes for another family.
"""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import _GATED, tiny
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma2ForCausalLM,
    Olmo2Config,
    OlmoConfig,
)

from shiftlens.errors import SourceError
from shiftlens.models.families import FamilyView, view
from shiftlens.models.families.family_view import Block

pytestmark = pytest.mark.quick

ADVICE = "Override `_gain` and `_shift`, or `_fold`, in the view class of this family"
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # these norms compute in float32


class AddedView(FamilyView):
    """The modules of a layer by their names in the library, and nothing else."""

    def _block(self, layer: int) -> Block:
        module = self._body.layers[layer]
        attention = module.self_attn
        return Block(
            query_key=(attention.q_proj, attention.k_proj),
            down=module.mlp.down_proj,
            norm=getattr(module, "input_layernorm", None),
            head_norms=(attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None,
            down_norm=getattr(module, "post_feedforward_layernorm", None),
        )


CONFIGS = {
    "cohere": lambda: CohereConfig(**{**_GATED, "pad_token_id": 0}),
    "cohere_head_norms": lambda: CohereConfig(**{**_GATED, "pad_token_id": 0}, use_qk_norm=True),
    "olmo": lambda: OlmoConfig(**{**_GATED, "pad_token_id": 0}),
}


def build(config, dtype=torch.float64):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def moments(x):
    """Mean and standard deviation, by which these norms subtract and divide."""
    return x.mean(-1, keepdim=True), (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()


def ran(model, layer, ids):
    """Input of a layer, and the outputs of its query and key projections, of head norms where there are any."""
    module, seen = model.model.layers[layer], {}
    attention = module.self_attn

    def keep(name):
        return lambda _, args, output: seen.__setitem__(name, output.detach().flatten(0, 1))

    handles = [
        module.register_forward_pre_hook(lambda _, args: seen.__setitem__("x", args[0].detach().flatten(0, 1))),
        *(getattr(attention, f"{s}_proj").register_forward_hook(keep(s)) for s in "qk"),
    ]
    if hasattr(attention, "q_norm"):
        handles += [getattr(attention, f"{s}_norm").register_forward_hook(keep(f"{s}_normed")) for s in "qk"]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("family", CONFIGS)
def test_queries_and_keys_read_vectors_that_nobody_centred(family):
    model = build(CONFIGS[family]())
    weights, ids = AddedView(model), torch.arange(12).view(2, 6)
    for layer in range(2):
        seen, matrices = ran(model, layer, ids), weights.query_key(layer)
        x = seen["x"]
        assert (moments(x)[0].abs() > 1e-3).any()
        for side, matrix, bias in (
            ("q", matrices.query, matrices.query_bias),
            ("k", matrices.key, matrices.key_bias),
        ):
            raw = seen[side].view(len(x), -1, 8)
            want = raw
            if f"{side}_normed" in seen:  # up to the scale of each token and head, which the view leaves out
                want = seen[f"{side}_normed"].view(len(x), -1, 8) * moments(raw)[1]
            want = want.repeat_interleave(4 // want.shape[1], dim=1)
            # The norm's mean is left in x, so only its scale is taken out here.
            got = torch.einsum("td,hde->the", x / moments(x)[1], matrix) + bias
            torch.testing.assert_close(got, want, **CLOSE)
            # An embedding that is moved as a whole reads the same.
            torch.testing.assert_close((x + 5) @ matrix, x @ matrix, **CLOSE)
        torch.testing.assert_close(weights.down(layer), model.model.layers[layer].mlp.down_proj.weight.T)


def test_patterns_behind_a_norm_that_centres():
    model = build(CONFIGS["cohere"]())
    layer = model.model.layers[1]
    layer.post_feedforward_layernorm = norm = nn.LayerNorm(32, bias=False).double()
    torch.nn.init.normal_(norm.weight)
    inner = torch.randn(5, 56, dtype=torch.float64)
    written = layer.mlp.down_proj(inner)
    want = norm(written) * moments(written)[1]
    torch.testing.assert_close(inner @ AddedView(model).down(1), want.detach(), **CLOSE)


class Spoilt(nn.Module):
    """An RMS norm with something more."""

    def __init__(self, more) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(32, dtype=torch.float64) + 0.5)
        self.more = more

    def forward(self, x):
        return self.more(self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


SPOILT = {
    "noise": lambda y: y + 1e-3 * torch.randn_like(y),
    "cubic": lambda y: y + 1e-3 * y**3,
    "tanh": lambda y: torch.tanh(0.1 * y),
    "offset": lambda y: y + torch.linspace(0, 0.1, 32),
    "sign": lambda y: -y,
    "half centred": lambda y: y - y.mean(-1, keepdim=True) / 2,
    "groups": lambda y: (y.unflatten(-1, (4, 8)) / y.unflatten(-1, (4, 8)).norm(dim=-1, keepdim=True)).flatten(-2),
    "not a number": lambda y: y * torch.nan,
    "shape": lambda y: y[..., 1:],
    "needs more": lambda y: y + torch.zeros(7),
}


@pytest.mark.parametrize("more", SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("place", ["input_layernorm", "post_feedforward_layernorm"])
def test_a_norm_of_another_form_is_refused_by_name(more, place):
    model = build(CONFIGS["cohere"]())
    setattr(model.model.layers[1], place, Spoilt(more))
    weights = AddedView(model)
    reads = weights.query_key if place == "input_layernorm" else weights.down
    reads(0)
    with pytest.raises(SourceError, match=rf"model\.layers\.1\.{place} \(Spoilt\): .*{ADVICE}"):
        reads(1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_gain_stored_in_another_way_is_refused_in_every_dtype(dtype):
    """Gemma stores gains as their difference from 1; a view that does not know this must not read on."""
    model = build(Gemma2Config(**_GATED, head_dim=8), dtype)
    assert isinstance(model, Gemma2ForCausalLM)
    match = rf"model\.layers\.0\.{{}} \(Gemma2RMSNorm\): .*{ADVICE}"
    with pytest.raises(SourceError, match=match.format("input_layernorm")):
        AddedView(model).query_key(0)
    for read in (AddedView(model).down, AddedView(model).down_bias):
        with pytest.raises(SourceError, match=match.format("post_feedforward_layernorm")):
            read(0)
    view(model).query_key(0)  # the family's own view knows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", [*CONFIGS, "llama", "gemma2", "qwen3", "gpt2", "opt"])
def test_rounding_is_not_taken_for_another_form(family, dtype):
    added = family in CONFIGS
    weights = AddedView(build(CONFIGS[family](), dtype)) if added else view(tiny(family, dtype))
    for layer in range(2):
        weights.query_key(layer)
        weights.down(layer)


def test_a_norm_over_all_heads_together_is_refused():
    model = build(Olmo2Config(**{**_GATED, "pad_token_id": 0}))
    with pytest.raises(SourceError, match=r"self_attn\.q_norm \(Olmo2RMSNorm\): .* do not fit vectors of 8"):
        AddedView(model).query_key(0)


@pytest.mark.parametrize("place", ["self_attn.k_norm", "post_feedforward_layernorm"])
def test_a_shift_behind_a_scale_that_is_left_out_is_refused(place):
    model = build(CONFIGS["cohere_head_norms"]())
    module = model.model.layers[0]
    norm = nn.LayerNorm(8 if "k_norm" in place else 32).double()
    nn.init.normal_(norm.bias)
    module.set_submodule(place, norm)
    weights = AddedView(model)
    read = weights.query_key if "k_norm" in place else weights.down
    with pytest.raises(SourceError, match=rf"layers\.0\.{place} \(LayerNorm\): adds a shift .*`_fold_behind`"):
        read(0)


def test_each_norm_runs_once_without_hooks_and_without_drawing_from_the_generator():
    model, runs = build(CONFIGS["cohere"]()), []
    for name, module in model.named_modules():
        if name.endswith("input_layernorm"):
            module.register_forward_hook(lambda *_: pytest.fail("a hook ran"))
            forward = module.forward
            module.forward = lambda x, name=name, forward=forward: runs.append(name) or forward(x)
    state = torch.get_rng_state()
    weights = AddedView(model)
    for layer in (0, 1, 0, 1):
        weights.query_key(layer)
    assert runs == ["model.layers.0.input_layernorm", "model.layers.1.input_layernorm"]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_gain_that_is_no_number_is_left_to_those_who_use_the_weights():
    model = tiny("llama")
    model.model.layers[0].input_layernorm.weight.data[3] = torch.nan
    query = view(model).query_key(0).query
    assert query[:, 3].isnan().all() and query[:, :3].isfinite().all()
