"""Runs an engine of ShiftLens as a contender, or computes the float64 reference; started by ``contender.py``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from serve import Answer, Contender, Task, serve
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from shiftlens.attribution.engine import Engine
from shiftlens.attribution.modes.forward import forward
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.attribution.plan.calibration import calibrated
from shiftlens.attribution.plan.cost import UNMEASURED, Costs

CHUNK = 16
"""Number of derivatives carried at once on the generic path; the engines choose their own."""


def explain(task: Task, model: PreTrainedModel, mode: str, costs: Callable[[], Costs]) -> Answer:
    """Return the answer of an engine; only this function knows the engine's signature."""
    sources = range(len(task.ids) - task.response)
    result = Engine(mode, costs=costs()).explain(model, task.ids, sources, task.response)
    return Answer(result.values, "log_probability", result.mode, result.reading.log_probability)


def generic(task: Task, model: PreTrainedModel) -> Answer:
    """Return the answer of the generic forward mode, used for families without hand-written derivatives.

    The generic mode takes Jacobian-vector products of the model itself.
    """
    sources = torch.arange(len(task.ids) - task.response)
    gradient, reading = forward(model, torch.tensor(task.ids), sources, task.response, CHUNK, written_out=False)
    return Answer(gradient, "log_probability", "forward", reading.log_probability)


def exact(task: Task, model: PreTrainedModel) -> Answer:
    """Return the float64 reference.

    For all response tokens, an engine computes it; if ``task.columns`` selects some, autograd computes it from the
    definition.
    """
    if task.columns is None:
        return explain(task, model, "auto", lambda: UNMEASURED)
    first = len(task.ids) - task.response
    embeddings = model.get_input_embeddings()(torch.tensor([task.ids])).detach()
    columns, logps = [], []
    with plain_attention(model):  # the attention of transformers computes softmax in float32
        for column in task.columns:
            leaf = embeddings[:, : first + column].clone().requires_grad_()
            logits = model(inputs_embeds=leaf, use_cache=False).logits[0, -1]
            logp = torch.log_softmax(logits, dim=-1)[task.ids[first + column]]
            (gradient,) = torch.autograd.grad(logp, leaf)
            columns.append((gradient * leaf).sum(-1)[0, :first].detach())
            logps.append(logp.detach())
    return Answer(torch.stack(columns, dim=1), "log_probability", "naive", torch.stack(logps))


def in_float64(model: PreTrainedModel) -> PreTrainedModel:
    """Convert a model to float64, RMS norms included: those of transformers compute in float32 in every model."""

    def norm(module: Any, x: Tensor) -> Tensor:
        return module.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + module.variance_epsilon)

    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(norm, module)
    return model.double()


def make(options: argparse.Namespace) -> tuple[Contender, str]:
    """Load the model for ``options.contender``; return the contender and its title."""
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, local_files_only=True)
    model.requires_grad_(False).eval()
    if options.contender == "exact":
        return partial(exact, model=in_float64(model)), "float64"
    if options.contender == "generic":
        return partial(generic, model=model), "ShiftLens forward (any family)"
    title = "naive loop" if options.contender == "naive" else f"ShiftLens {options.contender}"
    # Costs are timed at the first task, when no other process is still loading.
    measured = cache(partial(calibrated, model, Path(options.cache)))
    costs = measured if options.contender == "auto" else lambda: UNMEASURED
    return partial(explain, model=model, mode=options.contender, costs=costs), title


if __name__ == "__main__":
    serve(make)
