"""Generates and attributes responses to a fixed set of probe prompts."""

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
"""Token ids of the response to each prompt, by the prompt's id."""


@dataclass(frozen=True)
class Probes:
    """Prompts encoded for a model, with the settings of generation.

    Args:
        encoded: Encoded prompts.
        stops: Ids of the tokens that end a response.
        max_new_tokens: Largest number of response tokens.
        batch_tokens: Number of prompt and response tokens generated together.
    """

    encoded: tuple[Encoded, ...]
    stops: tuple[int, ...]
    max_new_tokens: int
    batch_tokens: int

    def first(self, count: int | None) -> Probes:
        """Return the first prompts only, with the same settings.

        Args:
            count: Number of prompts; ``None`` for all.
        """
        return replace(self, encoded=self.encoded[:count])

    def without(self, known: Mapping[str, object]) -> Probes:
        """Return the probes without some prompts, with the same settings.

        Args:
            known: Mapping whose keys are the ids of the prompts to leave out.
        """
        return replace(self, encoded=tuple(e for e in self.encoded if e.prompt.id not in known))


def make_probes(
    lm: LM, prompts: PromptSet, max_new_tokens: int, batch_tokens: int, on_long: str = "refuse"
) -> Probes:
    """Encode prompts for a model.

    Args:
        lm: The model; only its tokenizer, template and configuration are used.
        prompts: Prompts to encode.
        max_new_tokens: Largest number of response tokens.
        batch_tokens: Number of prompt and response tokens generated together.
        on_long: ``refuse`` or ``cut`` prompts that leave no room for the response.

    Raises:
        PromptError: Some prompts cannot be encoded; the message lists all of them.
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
    ids = shipped if isinstance(shipped, list) else [shipped]
    return tuple(sorted({int(i) for i in (*ids, lm.tokenizer.eos_token_id) if i is not None}))


def answer(lm: LM, probes: Probes) -> Answers:
    """Generate the model's own responses greedily.

    Args:
        lm: Model that generates the responses.
        probes: Prompts to respond to.

    Returns:
        Token ids of each response, by the prompt's id.
    """
    answers: Answers = {}
    for batch in batches(by_cost([_request(e, probes, None) for e in probes.encoded]), probes.batch_tokens):
        texts = greedy(lm.model, [r.input_ids for r in batch], probes.max_new_tokens, probes.stops)
        answers |= {request.key: tuple(ids) for request, (ids, _) in zip(batch, texts, strict=True)}
    return answers


def explain(
    lm: LM, probes: Probes, answers: Mapping[str, Sequence[int]], engine: Engine, settings: Settings, role: str
) -> list[Measured]:
    """Explain given responses and return their scores, see :func:`shiftlens.scores.samples.measure`.

    Args:
        lm: Model that explains the responses.
        probes: Prompts of the responses.
        answers: Token ids of the response to each prompt.
        engine: Attribution engine.
        settings: Values of L, b and p.
        role: Role recorded for the model: ``base`` before, ``tuned`` after the first step.
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
    """Convert explained responses to plain values and tensors, from which :func:`restored` rebuilds them.

    Args:
        measured: Responses with their scores.
    """
    names = ("input_ids", "values", "log_probability", "rank")
    tensors = [{name: torch.from_numpy(getattr(m.row, name)) for name in names} for m in measured]
    plain = [{"key": m.row.key, "response": m.row.response, "engine": m.row.engine} for m in measured]
    return [a | b for a, b in zip(plain, tensors, strict=True)]


def restored(
    rows: Sequence[Mapping[str, Any]], probes: Probes, settings: Settings, role: str = "base"
) -> list[Measured]:
    """Rebuild explained responses from the values of :func:`kept`.

    Args:
        rows: Values from :func:`kept`.
        probes: Prompts of the responses, in the same order.
        settings: Values of L, b and p.
        role: Role recorded for the model that gave the responses.
    """
    measured = []
    for encoded, row in zip(probes.encoded, rows, strict=True):
        arrays: dict[str, Any] = {
            name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in row.items()
        }
        index = np.asarray(encoded.prompt_index, np.int32)  # [prompt]
        measured.append(measure(role, encoded, Row(**arrays, prompt_index=index, finished=True), settings, "own"))
    return measured
