"""What a model answers to a fixed set of prompts, and what its answers rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from shiftlens.attribution import AttributionModule, Engine, Request, Row
from shiftlens.attribution.generate import greedy
from shiftlens.attribution.request import batches, by_cost
from shiftlens.errors import Problem, PromptError
from shiftlens.models.loading import LM
from shiftlens.prompts.encode import Encoded, EncodeError, encode
from shiftlens.prompts.readers import PromptSet
from shiftlens.scores.samples import Measured, measure
from shiftlens.scores.settings import Settings

Answers = dict[str, tuple[int, ...]]
"""Id of a prompt -> ids of the response."""


@dataclass(frozen=True)
class Probes:
    """Prompts as a model reads them.

    Args:
        encoded: the prompts.
        stops: ids that end a response.
        max_new_tokens: longest response.
        batch_tokens: prompt and response tokens generated together.
    """

    encoded: tuple[Encoded, ...]
    stops: tuple[int, ...]
    max_new_tokens: int
    batch_tokens: int

    def first(self, count: int | None) -> Probes:
        """The same with the first prompts only; ``None`` is all."""
        return replace(self, encoded=self.encoded[:count])

    def without(self, known: Mapping[str, object]) -> Probes:
        """The same without the prompts that are known."""
        return replace(self, encoded=tuple(e for e in self.encoded if e.prompt.id not in known))


def make_probes(
    lm: LM, prompts: PromptSet, max_new_tokens: int, batch_tokens: int, on_long: str = "refuse"
) -> Probes:
    """Encode prompts for a model.

    Args:
        lm: the model; only its tokenizer, template and settings are used.
        prompts: the prompts.
        max_new_tokens: longest response.
        batch_tokens: prompt and response tokens generated together.
        on_long: ``refuse`` or ``cut`` prompts that leave no room for the response.

    Raises:
        PromptError: prompts that cannot be encoded, all at once.
    """
    context = getattr(lm.model.config.get_text_config(), "max_position_embeddings", None)
    room = None if context is None else context - max_new_tokens
    encoded, problems = [], []
    for number, prompt in enumerate(prompts.prompts, start=1):
        try:
            encoded.append(encode(prompt, lm.tokenizer, lm.template, room, on_long))
        except EncodeError as error:
            problems.append(Problem(number, error.field, f"{error} (prompt {prompt.id})"))
    if problems:
        raise PromptError(prompts.where, problems)
    return Probes(tuple(encoded), _stops(lm), max_new_tokens, batch_tokens)


def _stops(lm: LM) -> tuple[int, ...]:
    shipped = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    found = shipped if isinstance(shipped, list) else [shipped]
    return tuple(sorted({int(i) for i in (*found, lm.tokenizer.eos_token_id) if i is not None}))


def answer(lm: LM, probes: Probes) -> Answers:
    """The model's own greedy responses.

    Args:
        lm: the model.
        probes: the prompts.
    """
    found: Answers = {}
    for batch in batches(by_cost([_request(e, probes, None) for e in probes.encoded]), probes.batch_tokens):
        texts = greedy(lm.model, [r.input_ids for r in batch], probes.max_new_tokens, probes.stops)
        found |= {request.key: tuple(ids) for request, (ids, _) in zip(batch, texts, strict=True)}
    return found


def explain(
    lm: LM, probes: Probes, answers: Mapping[str, Sequence[int]], engine: Engine, settings: Settings, role: str
) -> list[Measured]:
    """Scores of given responses, see :func:`shiftlens.scores.samples.measure`.

    Args:
        lm: who explains.
        probes: the prompts.
        answers: the response to each.
        engine: how they are explained.
        settings: L, b and p.
        role: what to call the model: ``base`` before, ``tuned`` after the first step.
    """
    module = AttributionModule(lm, engine=engine)
    rows = module.predict_step([_request(e, probes, answers[e.prompt.id]) for e in probes.encoded])
    return [measure(role, e, row, settings, "own") for e, row in zip(probes.encoded, rows, strict=True)]


def _request(encoded: Encoded, probes: Probes, answer: Sequence[int] | None) -> Request:
    return Request(
        encoded.prompt.id,
        encoded.input_ids,
        encoded.prompt_index,
        None if answer is None else tuple(answer),
        probes.max_new_tokens,
        probes.stops,
    )


def kept(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """What :func:`restored` needs of some responses, as plain values and tensors.

    Args:
        measured: the responses with their scores.
    """
    names = ("input_ids", "values", "log_probability", "rank")
    tensors = [{name: torch.from_numpy(getattr(m.row, name)) for name in names} for m in measured]
    plain = [{"key": m.row.key, "response": m.row.response, "engine": m.row.engine} for m in measured]
    return [a | b for a, b in zip(plain, tensors, strict=True)]


def restored(
    rows: Sequence[Mapping[str, Any]], probes: Probes, settings: Settings, role: str = "base"
) -> list[Measured]:
    """Measured responses from what was kept of them.

    Args:
        rows: of :func:`kept`.
        probes: the prompts, in the same order.
        settings: L, b and p.
        role: whose they are.
    """
    found = []
    for encoded, row in zip(probes.encoded, rows, strict=True):
        arrays: dict[str, Any] = {
            name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in row.items()
        }
        place = np.asarray(encoded.prompt_index, np.int32)
        found.append(measure(role, encoded, Row(**arrays, prompt_index=place, finished=True), settings, "own"))
    return found
