"""Explains a response by its prompt, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from shiftlens.attribution import AttributionModule, Engine, Request
from shiftlens.attribution.methods import Method, method_from_config
from shiftlens.attribution.request import Units
from shiftlens.models.loading import LM
from shiftlens.prompts.encode import encode, token_texts
from shiftlens.prompts.schema import Prompt
from shiftlens.prompts.units import UNITS, unit_of_tokens


@dataclass(frozen=True)
class Attribution:
    """Explanation of a response of M tokens by its prompt of N tokens.

    Args:
        importance: float32 [N, M], raw importance: what p(y_m) loses without x_n, or the method's estimate of it
            (of the gradient ``<d p(y_m) / d E[x_n], E[x_n]>``; paper, section 3.1), or the importance for another
            target. N counts units where the unit is not a token; [N + M, M] with ``include_response``.
        sources: [N] text of each source of the prompt: a token, or a unit.
        prompt_tokens: [N] tokens of the user's prompt as text, without the tokens of the template.
        response_tokens: [M] response tokens as text.
        probability: float32 [M], p(y_m).
        values: float32, importance up to one positive factor per response token, in the shape of ``importance``;
            normalized scores computed from it are the same and do not underflow.
        input_ids: [total] token ids of the model's input; the last M are the response.
        prompt_index: [N] positions of the prompt tokens in ``input_ids``.
        response: The response as text.
    """

    importance: Float[np.ndarray, "sources response"]
    sources: list[str]
    prompt_tokens: list[str]
    response_tokens: list[str]
    probability: Float[np.ndarray, " response"]
    values: Float[np.ndarray, "sources response"]
    input_ids: Int[np.ndarray, " total"]
    prompt_index: Int[np.ndarray, " prompt"]
    response: str


def attribute(
    lm: LM,
    prompt: str,
    response: str | None = None,
    max_new_tokens: int = 300,
    mode: str = "auto",
    target: str = "probability",
    include_response: bool = False,
    method: str | Method = "gradient",
    unit: str = "token",
    **settings: Any,
) -> Attribution:
    """Explain every token of a response by every token, or larger unit, of its prompt.

    Args:
        lm: Model from :func:`shiftlens.load`.
        prompt: The user's prompt; the model's template is added around it.
        response: Response to explain; ``None`` for the response that the model generates greedily.
        max_new_tokens: Largest number of tokens of a generated response (300 in the paper).
        mode: Attribution engine: ``auto``, ``reverse``, ``forward``, ``mixed`` or ``naive``; all return the same
            numbers.
        target: What is explained: ``probability``, ``log_probability``, or ``logit_difference`` to the most
            probable other token.
        include_response: Whether earlier response tokens also explain each response token.
        method: How the importance of a prompt token is measured: ``gradient`` (gradient x embedding), ``ablation``
            (the exact difference that removing it makes), another name of
            :data:`~shiftlens.attribution.methods.METHODS`, or a :class:`~shiftlens.attribution.methods.Method`.
        unit: What one source is: ``token``, ``word``, ``sentence`` or ``region``. ``ablation`` removes a unit at
            once; of other methods a unit has the sum over its tokens.
        **settings: Settings of a method given by name, e.g. ``by="mean"`` of ``ablation``.

    Returns:
        The raw importance, with the tokens, ids and probabilities that belong to it.

    Raises:
        EncodeError: The prompt has no token.
        ValueError: The mode, target or unit is unknown.
        ConfigError: There is no such method, or it has no such setting.
    """
    if unit not in ("token", *UNITS):
        raise ValueError(f"unit={unit}: expected one of token, {', '.join(UNITS)}")
    encoded = encode(Prompt("prompt", prompt, ((0, len(prompt)),)), lm.tokenizer, lm.template)
    given = None if response is None else tuple(lm.tokenizer(response, add_special_tokens=False)["input_ids"])
    chosen = method_from_config(method, {str(method): settings})
    of = tuple(range(len(encoded.tokens))) if unit == "token" else unit_of_tokens(encoded, unit)
    units = None if unit == "token" else Units(unit, of)
    request = Request(
        "",
        encoded.input_ids,
        encoded.prompt_index,
        given,
        max_new_tokens,
        lm.stops,
        include_response,
        chosen,
        units=units,
    )
    (row,) = AttributionModule(lm, engine=Engine(mode, target=target)).predict_step([request])
    importance, values = (
        matrix if unit == "token" or chosen.jointly else _summed(matrix, of)
        for matrix in (row.importance(), row.relative())
    )
    texts = [""] * (max(of) + 1)
    for index, token in zip(of, encoded.tokens, strict=True):
        texts[index] += token
    return Attribution(
        importance=importance,
        sources=texts,
        prompt_tokens=list(encoded.tokens),
        response_tokens=token_texts(lm.tokenizer, row.response_ids.tolist()),
        probability=row.probability,
        values=values,
        input_ids=row.input_ids,
        prompt_index=row.prompt_index,
        response=row.response,
    )


def _summed(matrix: Float[np.ndarray, "sources response"], of: Sequence[int]) -> Float[np.ndarray, "_ response"]:
    """Add up the rows of each unit's tokens; the rows of response tokens follow as they are."""
    units = np.zeros((max(of) + 1, matrix.shape[1]), matrix.dtype)
    np.add.at(units, np.asarray(of), matrix[: len(of)])
    return np.concatenate([units, matrix[len(of) :]])
