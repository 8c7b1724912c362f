"""Prepares a run: finds both models, encodes every prompt for both, and gives every sample its content hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from transformers import AutoConfig, PreTrainedTokenizerBase

from shiftlens.analyses.density.controls import ControlTest
from shiftlens.attribution import Engine, Request
from shiftlens.attribution.foils import FOILS, Asked, first_token
from shiftlens.attribution.methods import Method
from shiftlens.attribution.request import Units
from shiftlens.attribution.role import Role, keyed
from shiftlens.errors import ConfigError, Problem, PromptError, SourceError
from shiftlens.models.loading import load_tokenizer, shared_template
from shiftlens.models.pair import Layers, Pair, find_pair, identify
from shiftlens.models.roles import ROLES
from shiftlens.models.stops import stop_ids
from shiftlens.prompts.encode import Encoded, EncodeError, encode
from shiftlens.prompts.readers import PromptSet
from shiftlens.prompts.schema import Prompt
from shiftlens.prompts.units import unit_of_tokens
from shiftlens.scores.settings import Settings
from shiftlens.support.setting_rules import refuse

RESPONSES = ("own", "base", "tuned", "given", "both")
"""Which responses are explained. ``own``: each model explains its own responses, or the given response of a prompt
that has one; ``base`` or ``tuned``: both models explain that model's responses; ``given``: both models explain the
responses given with the prompts; ``both``: each model explains its own and the other model's responses."""


@dataclass(frozen=True)
class Options:
    """Options of a run, in addition to the pair and the prompts.

    Args:
        settings: Values of L, b and p.
        engine: Attribution engine with its target and memory budget.
        foil: What logit differences are taken to, one of :data:`~shiftlens.attribution.foils.FOILS` or a text.
        methods: Attribution methods; the first is the headline.
        unit: What is removed at once by methods that take units.
        negative: What negative importance counts as in scores.
        over_methods: Whether the headline is corrected for the choice among the methods.
        batch_tokens: Number of prompt and response tokens generated together.
        inputs: Which tokens before the response are sources.
        include_response: Whether responses are also explained by their own earlier tokens.
        check_precision: Number of samples that are also explained in float32 if the precision is reduced.
        measure_costs: Whether the mode of the engine is chosen by costs measured on this machine.
        max_new_tokens: Largest number of response tokens.
        max_tokens: Largest number of prompt tokens; ``None`` for all that the model's context has room for.
        on_long: ``refuse`` or ``cut`` longer prompts.
        on_error: ``raise`` or ``skip`` for prompts that cannot be encoded.
        seed: Random seed for the bootstrap intervals.
        responses: Which responses are explained, one of :data:`RESPONSES`.
        map_prompt: Id of the prompt whose map is shown first; ``None`` for the prompt with the median shift.
        map_b: Value of b for the maps.
        maps: Number of prompts with a map.
        controls: Controls in addition to the usual ones, by name.
    """

    settings: Settings
    engine: Engine
    foil: str
    methods: tuple[Method, ...]
    unit: str
    negative: str
    over_methods: bool
    batch_tokens: int
    inputs: str
    include_response: bool
    check_precision: int
    measure_costs: bool
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
    """Find both models, encode every prompt for both, and give every sample its content hash.

    Args:
        pair: The two models.
        prompts: Prompts that both models answer.
        options: Options of the run.

    Returns:
        The two roles with their encoded prompts and requests, and the problems of the prompts that are left out.

    Raises:
        SourceError: A model, or its configuration, cannot be read.
        PromptError: Some prompts cannot be encoded; the message lists all of them.
        ConfigError: No prompt has the id ``options.map_prompt``, or a model has no token for ``options.foil``.
    """
    layers_by_role = find_pair(pair)
    tokenizers = {name: load_tokenizer(layers) for name, layers in layers_by_role.items()}
    template = shared_template(pair.tuned.template, tokenizers["tuned"])
    contexts = {name: context_length(layers_by_role[name]) for name in ROLES}
    encoded, problems = encode_for_both(prompts, tokenizers, template, contexts, options)
    foils = foil_ids(options.foil, tokenizers)
    # Both roles stop at the stop tokens of either. Otherwise a base model without an end-of-turn token would
    # continue after the end of the turn, and the two models would differ in length alone.
    ends = {
        text
        for name in ROLES
        for text in tokenizers[name].convert_ids_to_tokens(
            stop_ids(layers_by_role[name].model.folder, tokenizers[name])
        )
    }
    roles = {}
    for name in ROLES:
        spec, layers = pair.role(name), layers_by_role[name]
        identity = identify(spec, layers, pair.cache)
        stops = tuple(sorted({i for text in ends if (i := _single_id(text, tokenizers[name])) is not None}))
        role = Role(
            spec, layers, identity, tokenizers[name], template, contexts[name], options.engine,
            tuple(encoded[name]), (), options.methods,
        )  # fmt: skip
        requests = tuple(request_for(e, role, stops, options, foils[name]) for e in role.encoded)
        roles[name] = replace(role, requests=requests)
    return roles, (*prompts.skipped, *problems)


def asked_of(roles: Mapping[str, Role], options: Options) -> Asked:
    """Return the requests of a run: who explains which responses, contrasted with what.

    Args:
        roles: Both roles.
        options: Options of the run.
    """
    writers = [options.responses] if options.responses in ROLES else ROLES
    return Asked(roles, options.foil == "other_model", writers)


def encode_for_both(
    prompts: PromptSet,
    tokenizers: Mapping[str, PreTrainedTokenizerBase],
    template: str,
    contexts: Mapping[str, int | None],
    options: Options,
) -> tuple[dict[str, list[Encoded]], list[Problem]]:
    """Encode every prompt for both models.

    Args:
        prompts: Prompts that both models answer.
        tokenizers: Tokenizer of each role.
        template: Text to write around a prompt.
        contexts: Context length of each role in tokens; ``None`` if it is not known.
        options: Options of the run.

    Returns:
        Encoded prompts by role, and the problems of those that are left out.

    Raises:
        PromptError: Some prompts cannot be encoded; the message lists all of them.
        ConfigError: No prompt has the id ``options.map_prompt``.
    """
    problems: list[Problem] = []
    encoded: dict[str, list[Encoded]] = {name: [] for name in ROLES}
    for number, prompt in enumerate(prompts.prompts, start=1):
        try:
            if options.responses == "given" and prompt.response is None:
                raise EncodeError("response", "is missing; data.responses=given explains given responses only")
            # One length limit for both, so that base and tuned get the same prompt after a cut.
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
    return encoded, problems


def foil_ids(foil: str, tokenizers: Mapping[str, PreTrainedTokenizerBase]) -> dict[str, tuple[int, ...] | None]:
    """Return the one id that each role's responses are contrasted with; ``None`` where the run finds it later.

    Args:
        foil: Value of ``saliency.foil``.
        tokenizers: Tokenizer of each role.

    Raises:
        ConfigError: A model has no token for the foil.
    """
    if foil in FOILS:
        return dict.fromkeys(tokenizers)
    ids = {name: first_token(tokenizer, foil) for name, tokenizer in tokenizers.items()}
    refuse([f"saliency.foil={foil}: no token of the {name} model" for name, own in ids.items() if own is None])
    return {name: None if own is None else (own,) for name, own in ids.items()}


def _single_id(text: str, tokenizer: PreTrainedTokenizerBase) -> int | None:
    return tokenizer.get_vocab().get(text)


def context_length(layers: Layers) -> int | None:
    """Return the context length of a model in tokens; ``None`` if its configuration has none.

    Args:
        layers: Folders of the model.

    Raises:
        SourceError: The configuration cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(layers.model.folder, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise SourceError(f"{layers.model.source}: its configuration cannot be read: {error}") from error
    length: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length


def _given(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, options: Options) -> tuple[int, ...] | None:
    """Return the token ids of the prompt's given response; ``None`` if the model generates the response."""
    if prompt.response is None or options.responses not in ("own", "given"):
        return None
    return tuple(tokenizer(prompt.response, add_special_tokens=False)["input_ids"])


def _room(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, context: int | None, options: Options) -> int | None:
    """Return the largest number of prompt tokens that leaves room for the response; ``None`` for no limit."""
    given = _given(prompt, tokenizer, options)
    response = options.max_new_tokens if given is None else len(given)
    if context is not None and response >= context:
        raise EncodeError("response", f"of {response} tokens does not fit the model's context of {context}")
    rooms = (None if context is None else context - response, options.max_tokens)
    return min((room for room in rooms if room is not None), default=None)


def _outside(encoded: Encoded) -> tuple[int, ...]:
    inside = set(encoded.prompt_index)
    return tuple(place for place in range(len(encoded.input_ids)) if place not in inside)


def _units(encoded: Encoded, unit: str) -> Units | None:
    if unit == "token":
        return None
    name = "sentence" if unit == "auto" else unit
    return Units(name, unit_of_tokens(encoded, name), always=unit != "auto")


def request_for(
    encoded: Encoded, role: Role, stops: tuple[int, ...], options: Options, foils: tuple[int, ...] | None
) -> Request:
    """Build the request to explain a role's own response to a prompt, or the one that the prompt brings.

    Args:
        encoded: The prompt, encoded for the role.
        role: Role that explains.
        stops: Ids that end a response.
        options: Options of the run.
        foils: Ids that response tokens are contrasted with; ``None`` where the run finds them later.
    """
    request = Request(
        "",
        encoded.input_ids,
        encoded.prompt_index,
        _given(encoded.prompt, role.tokenizer, options),
        options.max_new_tokens,
        stops,
        options.include_response,
        options.methods[0],
        () if options.inputs == "prompt" else _outside(encoded),
        _units(encoded, options.unit),
        foils=foils,
    )
    return keyed(request, role)
