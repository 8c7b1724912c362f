"""Make a run ready: both models found, every prompt encoded for both, every sample named by content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from transformers import AutoConfig, PreTrainedTokenizerBase

from shiftlens.analyses.density.controls import ControlTest
from shiftlens.attribution import Engine, Request
from shiftlens.attribution.methods import Method
from shiftlens.attribution.role import Role, keyed
from shiftlens.errors import ConfigError, Problem, PromptError, SourceError
from shiftlens.models.loading import load_tokenizer, shared_template
from shiftlens.models.pair import Layers, Pair, find_pair, identify
from shiftlens.models.roles import ROLES
from shiftlens.models.stops import stop_ids
from shiftlens.prompts.encode import Encoded, EncodeError, encode
from shiftlens.prompts.readers import PromptSet
from shiftlens.prompts.schema import Prompt
from shiftlens.scores.settings import Settings

RESPONSES = ("own", "base", "tuned", "given", "both")
"""Whose responses are explained: each model its own; both models those of one; those given with the prompts; or
each model its own and the other's. Under ``own`` a prompt that brings a response keeps it."""


@dataclass(frozen=True)
class Options:
    """What a run is asked to do, beyond the pair and the prompts.

    Args:
        settings: L, b and p.
        engine: how responses are explained.
        method: the method of attribution.
        batch_tokens: prompt and response tokens generated together.
        include_response: whether earlier response tokens are sources too.
        check_precision: samples also explained in float32 where the precision is reduced.
        max_new_tokens: longest response.
        max_tokens: most prompt tokens; ``None`` is what the model's context leaves.
        on_long: ``refuse`` or ``cut`` longer prompts.
        on_error: ``raise`` or ``skip`` prompts that cannot be encoded.
        seed: of the bootstrap intervals.
        responses: whose responses are explained, one of :data:`RESPONSES`.
        map_prompt: id of the prompt whose map is shown first; ``None`` is the one with the median shift.
        map_b: b of the maps.
        maps: number of prompts with a map.
        controls: rival explanations beyond the usual ones, by name.
    """

    settings: Settings
    engine: Engine
    method: Method
    batch_tokens: int
    include_response: bool
    check_precision: int
    max_new_tokens: int
    max_tokens: int | None
    on_long: str
    on_error: str
    seed: int
    responses: str
    map_prompt: str | None
    map_b: int
    maps: int
    controls: Mapping[str, ControlTest] = field(default_factory=dict)


def prepare(pair: Pair, prompts: PromptSet, options: Options) -> tuple[dict[str, Role], tuple[Problem, ...]]:
    """Find both models, encode every prompt for both, and name every sample by content."""
    found = find_pair(pair)
    tokenizers = {name: load_tokenizer(layers) for name, layers in found.items()}
    template = shared_template(pair.tuned.template, tokenizers["tuned"])
    contexts = {name: _context(found[name]) for name in ROLES}
    problems: list[Problem] = []
    encoded: dict[str, list[Encoded]] = {name: [] for name in ROLES}
    for number, prompt in enumerate(prompts.prompts, start=1):
        try:
            if options.responses == "given" and prompt.response is None:
                raise EncodeError("response", "is missing; data.responses=given explains given responses only")
            # One room for both: a cut must leave base and tuned the same prompt.
            rooms = [_room(prompt, tokenizers[name], contexts[name], options) for name in ROLES]
            room = min((room for room in rooms if room is not None), default=None)
            both = {name: encode(prompt, tokenizers[name], template, room, options.on_long) for name in ROLES}
        except EncodeError as error:
            problems.append(Problem(number, error.field, f"{error} (prompt {prompt.id})"))
            continue
        for name, value in both.items():
            encoded[name].append(value)
    if problems and (options.on_error != "skip" or not encoded["base"]):
        raise PromptError(prompts.where, problems)
    if options.map_prompt is not None and all(e.prompt.id != options.map_prompt for e in encoded["base"]):
        some = ", ".join(e.prompt.id for e in encoded["base"][:3])
        raise ConfigError(f"report.prompt={options.map_prompt}: no such id in this run; e.g. {some}")
    # Both roles stop at what ends a response of either: a base that does not know the end of a turn would
    # write on behind it, and differ in length alone.
    ends = {
        text
        for name in ROLES
        for text in tokenizers[name].convert_ids_to_tokens(stop_ids(found[name].model.folder, tokenizers[name]))
    }
    roles = {}
    for name in ROLES:
        spec, layers = pair.role(name), found[name]
        identity = identify(spec, layers, pair.cache)
        stops = tuple(sorted({i for text in ends if (i := _single_id(text, tokenizers[name])) is not None}))
        role = Role(
            spec, layers, identity, tokenizers[name], template, contexts[name], options.engine,
            tuple(encoded[name]), (),
        )  # fmt: skip
        roles[name] = replace(role, requests=tuple(_request(e, role, stops, options) for e in role.encoded))
    return roles, (*prompts.skipped, *problems)


def _single_id(text: str, tokenizer: PreTrainedTokenizerBase) -> int | None:
    return tokenizer.get_vocab().get(text)


def _context(layers: Layers) -> int | None:
    try:
        config = AutoConfig.from_pretrained(layers.model.folder, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise SourceError(f"{layers.model.source}: its configuration cannot be read: {error}") from error
    length: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length


def _given(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, options: Options) -> tuple[int, ...] | None:
    if prompt.response is None or options.responses not in ("own", "given"):
        return None
    return tuple(tokenizer(prompt.response, add_special_tokens=False)["input_ids"])


def _room(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, context: int | None, options: Options) -> int | None:
    """Most prompt tokens that leave room for the response."""
    brought = _given(prompt, tokenizer, options)
    response = options.max_new_tokens if brought is None else len(brought)
    if context is not None and response >= context:
        raise EncodeError("response", f"of {response} tokens does not fit the model's context of {context}")
    rooms = (None if context is None else context - response, options.max_tokens)
    return min((room for room in rooms if room is not None), default=None)


def _request(encoded: Encoded, role: Role, stops: tuple[int, ...], options: Options) -> Request:
    request = Request(
        "",
        encoded.input_ids,
        encoded.prompt_index,
        _given(encoded.prompt, role.tokenizer, options),
        options.max_new_tokens,
        stops,
        options.include_response,
        options.method,
    )
    return keyed(request, role)
