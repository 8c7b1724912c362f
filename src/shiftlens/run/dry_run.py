"""Forecasts the work of a run: the same samples as the run explains, without the weights of any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from shiftlens.attribution import Request, Row
from shiftlens.attribution.foils import Asked
from shiftlens.attribution.plan.calibration import known_costs
from shiftlens.attribution.plan.forecast import Forecast, forecast
from shiftlens.attribution.role import Role
from shiftlens.callbacks import RowView
from shiftlens.errors import SourceError
from shiftlens.models.identity import Identity
from shiftlens.models.loading import load_shape, load_tokenizer, shared_template
from shiftlens.models.pair import Layers, Pair, find_pair
from shiftlens.models.quiet import quiet_libraries
from shiftlens.models.roles import ROLES
from shiftlens.models.sources import short_name
from shiftlens.prompts.encode import Encoded
from shiftlens.prompts.readers import PromptSet
from shiftlens.run.prepare import Options, asked_of, context_length, encode_for_both, foil_ids, request_for
from shiftlens.run.wanted import wanted_by_analysis


@dataclass(frozen=True)
class PlannedWork:
    """Work of one model for one analysis, by one method.

    Args:
        role: Role of the model.
        analysis: Name of the analysis.
        method: Words for the method.
        work: Its samples, lengths, rows, operations, memory and time.
    """

    role: str
    analysis: str
    method: str
    work: Forecast


def dry_run(
    pair: Pair, prompts: PromptSet, options: Options, trainer: Mapping[str, Any], callbacks: Sequence[Callback]
) -> tuple[list[PlannedWork], list[str]]:
    """Forecast the work of a run that finds an empty ledger.

    A model may be known by its configuration alone. Own responses count as ``data.max_new_tokens`` tokens.

    Args:
        pair: The two models.
        prompts: Prompts that both models answer.
        options: Options of the run.
        trainer: Arguments of the Lightning ``Trainer``, which say on which device the models would run.
        callbacks: Lightning callbacks of the run.

    Returns:
        Work of each role and analysis, and one sentence for each assumption.

    Raises:
        SourceError: A model is not known, or its configuration cannot be read.
        PromptError: Some prompts cannot be encoded; the message lists all of them.
    """
    layers = find_pair(pair, weights=False)
    shapes = {name: load_shape(pair.role(name), layers[name]) for name in ROLES}
    roles, assumed = _roles(pair, layers, prompts, options)
    quiet_libraries()
    made = Trainer(**instantiate(dict(trainer)), logger=False, enable_checkpointing=False)
    device = made.strategy.root_device
    costs = {name: known_costs(shape, device, pair.cache) for name, shape in shapes.items()}
    views = [view for view in callbacks if isinstance(view, RowView)]
    groups = _requests(asked_of(roles, options), views, options)
    plan = [
        PlannedWork(role, analysis, words, forecast(requests, shapes[role], costs[role]))
        for (role, analysis, words), requests in groups.items()
    ]
    return plan, assumed


def _roles(
    pair: Pair, layers: Mapping[str, Layers], prompts: PromptSet, options: Options
) -> tuple[dict[str, Role], list[str]]:
    """Make both roles with their prompts, and say what was assumed; they are identified by their names alone."""
    contexts = {name: context_length(layers[name]) for name in ROLES}
    without = [name for name in ROLES if not _has_tokenizer(layers[name])]
    template, assumed = "none", []
    if without:
        tokenizers: dict[str, PreTrainedTokenizerBase] = dict.fromkeys(ROLES, _stand_in())
        room = options.max_tokens or min(
            (context - options.max_new_tokens for context in contexts.values() if context), default=1024
        )
        one = [_of_length(prompt, room) for prompt in prompts.prompts]
        encoded = dict.fromkeys(ROLES, one)
        named = " and ".join(short_name(pair.role(name).source) for name in without)
        source = "data.max_tokens" if options.max_tokens else "the longest that fits; data.max_tokens is not set"
        assumed.append(f"{named}: no tokenizer here, so every prompt counts as {room} tokens ({source})")
    else:
        tokenizers = {name: load_tokenizer(layers[name]) for name in ROLES}
        template = shared_template(pair.tuned.template, tokenizers["tuned"])
        encoded, _ = encode_for_both(prompts, tokenizers, template, contexts, options)
    foils = foil_ids(options.foil, tokenizers)
    roles = {}
    for name in ROLES:
        identity = Identity(pair.role(name).source, name, "", pair.role(name).resolved_dtype)
        role = Role(
            pair.role(name), layers[name], identity, tokenizers[name], template, contexts[name], options.engine,
            tuple(encoded[name]), (), options.methods,
        )  # fmt: skip
        requests = tuple(request_for(e, role, (), options, foils[name]) for e in role.encoded)
        roles[name] = replace(role, requests=requests)
    if any(request.response_ids is None for role in roles.values() for request in role.requests):
        assumed.append(f"own responses count as {options.max_new_tokens} tokens (data.max_new_tokens)")
    return roles, assumed


def _has_tokenizer(layers: Layers) -> bool:
    try:
        return layers.tokenizer.is_dir()
    except SourceError:
        return False


def _stand_in() -> PreTrainedTokenizerFast:
    """Make a tokenizer of one token, for models that have none here."""
    core = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def _of_length(prompt: Any, length: int) -> Encoded:
    """Encode a prompt as a number of unknown tokens."""
    none = np.zeros(length, bool)
    edges = [len(prompt.text) * i // length for i in range(length + 1)]
    offsets = tuple(pairwise(edges))
    return Encoded(prompt, (0,) * length, tuple(range(length)), ("",) * length, none, none, offsets=offsets)


def _requests(
    asked: Asked, views: Sequence[RowView], options: Options
) -> dict[tuple[str, str, str], list[Request]]:
    """Group all requests of a run by role, analysis and words of the method.

    The run asks again when responses have become known, so this answers every request with a row of the longest
    response, until nothing more is asked. A request of several analyses belongs to the first of them.
    """
    rows: dict[str, dict[str, Row]] = {name: {} for name in asked.roles}
    groups: dict[tuple[str, str, str], list[Request]] = {}
    while True:
        before = sum(map(len, rows.values()))
        for name in ROLES:
            for analysis, requests in wanted_by_analysis(name, asked, rows, views, options).items():
                for request in requests:
                    if request.key not in rows[name]:
                        rows[name][request.key] = _longest(request, ROLES.index(name))
                        sources = request.prompt_index or request.sets
                        words = request.method.words if sources else "reading only"
                        groups.setdefault((name, analysis, words), []).append(request)
        if sum(map(len, rows.values())) == before:
            return dict(sorted(groups.items(), key=lambda item: ROLES.index(item[0][0])))


def _longest(request: Request, writer: int) -> Row:
    """Make the row of the longest response that a request may get; its numbers mean nothing.

    The writers' responses differ, because one response of two writers would be explained once.
    """
    response = request.max_new_tokens if request.response_ids is None else len(request.response_ids)
    ids = (*request.input_ids, *(request.response_ids or (writer,) * response))
    return Row(
        key=request.key,
        input_ids=np.asarray(ids, np.int32),
        prompt_index=np.asarray(request.prompt_index, np.int32),
        values=np.broadcast_to(np.float32(0), (len(request.prompt_index), response)),
        log_probability=np.zeros(response, np.float32),
        rank=np.ones(response, np.int32),
        choice=np.zeros(response, np.int32),
        response=(" a", " b")[writer] * response,
        finished=False,
        engine="none",
    )
