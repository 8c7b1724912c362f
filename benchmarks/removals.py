"""Computes exact removal as a contender of ``methods.py``: ShiftLens' packs, or a plain loop over whole texts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import torch
from ours import in_float64
from serve import Answer, Contender, Task, serve
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from shiftlens.attribution.engine import Engine
from shiftlens.attribution.plan.calibration import calibrated
from shiftlens.attribution.plan.cost import Costs
from shiftlens.attribution.removal import removal

Units = Callable[[Task], Sequence[Sequence[int]]]
PEERS_ID = 0
"""Id that both peers put in the place of a removed token by default."""
BATCH = 16


def packed(task: Task, model: PreTrainedModel, units: Units, by: str) -> Answer:
    """Return ShiftLens' losses of log p(y_m)."""
    found = removal(
        model, task.ids, units(task), task.response, Engine(), by, PEERS_ID if by == "neutral" else None
    )
    return Answer(found.values, "log_probability", found.mode, found.reading.log_probability)


@torch.no_grad()
def batched(task: Task, model: PreTrainedModel, by: str) -> Answer:
    """Return the losses from whole texts in batches, with the logits of response positions only.

    ``task.columns`` selects tokens to remove; by default, all of the prompt.
    """
    first = len(task.ids) - task.response
    places = list(range(first)) if task.columns is None else task.columns
    ids = torch.tensor(task.ids, device=model.device)
    embed, wanted = model.get_input_embeddings(), ids[first:, None]
    changed = embed(ids[:-1]).repeat(len(places) + 1, 1, 1)  # [tokens + 1, fed, width], the text itself at last
    vector = embed(torch.tensor(PEERS_ID, device=model.device)) if by == "neutral" else 0.0
    changed[range(len(places)), places] = vector
    logp = []
    for texts in changed.split(BATCH):
        logits = model(inputs_embeds=texts, use_cache=False, logits_to_keep=task.response).logits
        logp += [each.log_softmax(-1).gather(1, wanted)[:, 0] for each in logits]  # [response] each
    values = torch.stack(logp).cpu()
    return Answer(values[-1] - values[:-1], "log_probability", "batched", values[-1])


def gradient(task: Task, model: PreTrainedModel, costs: Callable[[], Costs]) -> Answer:
    """Return gradient x embedding, whose time is compared, not its numbers."""
    sources = range(len(task.ids) - task.response)
    found = Engine(costs=costs()).explain(model, task.ids, sources, task.response)
    return Answer(found.values, "log_probability", found.mode, found.reading.log_probability)


def tokens(task: Task) -> Sequence[Sequence[int]]:
    """Return every prompt token as a unit."""
    return [[place] for place in range(len(task.ids) - task.response)]


def divided(
    task: Task, pieces: Callable[[int], str], begins: Callable[[str, str], bool]
) -> Sequence[Sequence[int]]:
    """Return units of the prompt; ``begins`` tells from two tokens' texts whether the second begins one."""
    units: list[list[int]] = []
    last = ""
    for place in range(len(task.ids) - task.response):
        text = pieces(task.ids[place])
        if not units or begins(last, text):
            units.append([])
        units[-1].append(place)
        last = text
    return units


def make(options: argparse.Namespace) -> tuple[Contender, str]:
    """Load the model for ``options.contender``; return the contender and its title."""
    dtype = getattr(torch, options.dtype)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype, local_files_only=True)
    model = model.requires_grad_(False).eval().to(options.device)
    name, _, by = options.contender.partition(":")
    if name == "gradient":
        # Costs are timed at the first task, which is not measured.
        costs = cache(partial(calibrated, model, Path(options.cache)))
        return partial(gradient, model=model, costs=costs), "ShiftLens gradient (auto)"
    if name.startswith("exact"):
        model = in_float64(model.float())
        if name == "exact_loop":
            return partial(batched, model=model, by=by), "float64 loop"
        return partial(packed, model=model, units=tokens, by=by), "float64"
    if name == "batched":
        return partial(batched, model=model, by=by), f"batched whole texts ({by})"
    units: Units = tokens
    if name != "token":
        pieces = AutoTokenizer.from_pretrained(options.model, local_files_only=True).decode
        begins = {
            "word": lambda _, text: text.startswith((" ", "\n")),
            "sentence": lambda last, _: last.strip() in (".", "!", "?"),
        }[name]
        units = partial(divided, pieces=pieces, begins=begins)
    return partial(packed, model=model, units=units, by=by), f"ShiftLens removal by {name} ({by})"


if __name__ == "__main__":
    serve(make)
