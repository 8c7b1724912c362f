"""Integrated gradients against automatic differentiation along the path, and what they add up to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.tiny import FAMILIES, VOCAB, tiny

from shiftlens.attribution import Engine
from shiftlens.attribution.methods import Integrated
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.errors import ConfigError

TARGETS = ("probability", "log_probability", "logit_difference")


def targets(model, ids, response, target, moved, foils=None):
    """f of every response token, from the embeddings that `moved` makes of the ordinary ones, and the foils."""
    handle = model.get_input_embeddings().register_forward_hook(lambda _m, _a, out: moved(out))
    try:
        with plain_attention(model), torch.enable_grad():
            logits = model(ids[None, :-1], use_cache=False).logits[0, -response:]
    finally:
        handle.remove()
    wanted = ids[-response:]
    own = logits.gather(1, wanted[:, None])[:, 0]
    if target == "logit_difference":
        if foils is None:
            foils = logits.scatter(1, wanted[:, None], -torch.inf).argmax(1)
        return own - logits.gather(1, foils[:, None])[:, 0], foils
    log_p = own - logits.logsumexp(1)
    return (log_p.exp() if target == "probability" else log_p), None


def along(model, ids, sources, response, target, base, points):
    """The integral, [source, response], and the difference that it divides up; straight from the definition."""
    E = model.get_input_embeddings()(ids[:-1]).detach()
    places, weights = np.polynomial.legendre.leggauss(points)
    whole, foils = targets(model, ids, response, target, lambda out: out)
    total = torch.zeros(len(sources), response, dtype=torch.float64)

    def at(a):
        leaf = E.clone()
        leaf[sources] = base + a * (E[sources] - base)
        return leaf.requires_grad_()

    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        leaf = at(place)
        f, _ = targets(model, ids, response, target, lambda out, leaf=leaf: leaf[None], foils)
        for m in range(response):
            (gradient,) = torch.autograd.grad(f[m], leaf, retain_graph=True)
            total[:, m] += weight * (gradient * (E - base)).sum(-1)[sources]
    start, _ = targets(model, ids, response, target, lambda out: at(0.0)[None], foils)
    return total, (whole - start).detach(), whole.detach()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_definition_in_float64(family):
    model = tiny(family).requires_grad_(False)
    rng = np.random.default_rng(FAMILIES.index(family))
    ids = torch.from_numpy(rng.integers(3, VOCAB, 14))
    sources = rng.choice(13, 5, replace=False)  # of the prompt and of the response
    layer = model.get_input_embeddings()
    bases = {"mean": layer(torch.arange(VOCAB)).mean(0), "zero": torch.zeros(layer.weight.shape[1])}
    modes = ("auto", "reverse", "forward", "mixed") + (() if family == "gemma2" else ("naive",))
    for target in TARGETS:
        baseline = ("zero", "mean")[int(rng.integers(2))]
        want, difference, whole = along(model, ids, torch.from_numpy(sources), 5, target, bases[baseline], 3)
        mode = modes[int(rng.integers(len(modes)))]
        found = Integrated(3, baseline).explain(model, ids.tolist(), sources.tolist(), 5, Engine(mode, 2, target))
        got = found.values * found.reading.log_probability.exp() if target == "probability" else found.values
        assert ((got - want).abs().amax(0) / want.abs().amax(0)).max() < 1e-9
        assert (found.residual - (want.sum(0) - difference)).abs().max() < 1e-9 * (1 + whole.abs().max())


@pytest.mark.parametrize(
    ("family", "baseline", "target"),
    [
        ("llama", "mean", "probability"),
        ("gpt2", "zero", "log_probability"),
        ("gpt_neox", "mean", "logit_difference"),
    ],
)
def test_complete_with_many_points(family, baseline, target):
    model, ids = tiny(family).requires_grad_(False), list(range(5, 17))
    engine = Engine("reverse", target=target)
    errors = [
        Integrated(points, baseline).explain(model, ids, range(8), 4, engine).residual.abs().max()
        for points in (2, 8, 64)
    ]
    assert errors[0] > 1e-4
    assert errors[2] < 1e-6
    assert errors[2] < errors[1] / 10


def test_units_are_sums_and_nothing_is_explained_by_nothing():
    model, ids, engine = tiny("llama").requires_grad_(False), list(range(5, 17)), Engine()
    method = Integrated(2)
    tokens = method.explain(model, ids, [1, 2, 5], 4, engine)
    units = method.explain_units(model, ids, [[1, 5], [2]], 4, engine)
    assert torch.allclose(units.values, torch.stack([tokens.values[0] + tokens.values[2], tokens.values[1]]))
    assert torch.equal(units.residual, tokens.residual)
    assert method.explain(model, ids, [], 4, engine).residual.tolist() == [0.0] * 4
    empty = method.explain(model, ids, [1, 2], 0, engine)
    assert empty.values.shape == (2, 0) and empty.residual.shape == (0,)


def test_improbable_tokens_stay_finite_in_float32():
    model, ids = tiny("llama", torch.float32).requires_grad_(False), list(range(5, 17))
    model.lm_head.weight.mul_(2000)
    found = Integrated(4).explain(model, ids, range(8), 4, Engine())
    assert found.reading.log_probability.min() < -500
    assert torch.isfinite(found.values.float()).all() and torch.isfinite(found.residual).all()


def test_settings_are_checked_by_name():
    assert Integrated(points=16, baseline="mean").words == "integrated gradients (mean embedding, 16 points)"
    assert Integrated().identity() == {"points": 8, "baseline": "zero"}
    for settings, message in (
        ({"points": 0}, r"saliency\.integrated\.points=0: expected a whole number from 1"),
        ({"baseline": "noise"}, r"saliency\.integrated\.baseline=noise: expected one of zero, mean"),
    ):
        with pytest.raises(ConfigError, match=message):
            Integrated(**settings)
