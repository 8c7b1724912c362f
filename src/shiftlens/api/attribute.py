"""Explains a response by its prompt, from Python."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from shiftlens.attribution import AttributionModule, Engine, Request
from shiftlens.attribution.methods import Method, method_from_config
from shiftlens.models.loading import LM
from shiftlens.prompts.encode import encode, token_texts
from shiftlens.prompts.schema import Prompt


@dataclass(frozen=True)
class Attribution:
    """Explanation of a response of M tokens by its prompt of N tokens.

    Args:
        importance: float32 [N, M], raw importance ``<d p(y_m) / d E[x_n], E[x_n]>`` (paper, section 3.1), or
            the importance for another target; [N + M, M] with ``include_response``.
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
) -> Attribution:
    """Explain every token of a response by every token of its prompt, exactly.

    Args:
        lm: Model from :func:`shiftlens.load`.
        prompt: The user's prompt; the model's template is added around it.
        response: Response to explain; ``None`` for the response that the model generates greedily.
        max_new_tokens: Largest number of tokens of a generated response (300 in the paper).
        mode: Attribution engine: ``auto``, ``reverse``, ``forward``, ``mixed`` or ``naive``; all return the same
            numbers.
        target: What the derivatives are of: ``probability``, ``log_probability``, or ``logit_difference`` to the
            most probable other token.
        include_response: Whether earlier response tokens also explain each response token.
        method: How the importance of a prompt token is measured: ``gradient`` (gradient x embedding), ``ablation``
            (the exact difference that setting one embedding to zero makes), or a
            :class:`~shiftlens.attribution.methods.Method`.

    Returns:
        The raw importance, with the tokens, ids and probabilities that belong to it.

    Raises:
        EncodeError: The prompt has no token.
        ValueError: The mode or target is unknown.
    """
    encoded = encode(Prompt("prompt", prompt, ((0, len(prompt)),)), lm.tokenizer, lm.template)
    given = None if response is None else tuple(lm.tokenizer(response, add_special_tokens=False)["input_ids"])
    request = Request(
        "", encoded.input_ids, encoded.prompt_index, given, max_new_tokens, lm.stops, include_response,
        method_from_config(method),
    )  # fmt: skip
    (row,) = AttributionModule(lm, engine=Engine(mode, target=target)).predict_step([request])
    return Attribution(
        importance=row.importance(),
        prompt_tokens=list(encoded.tokens),
        response_tokens=token_texts(lm.tokenizer, row.response_ids.tolist()),
        probability=row.probability,
        values=row.relative(),
        input_ids=row.input_ids,
        prompt_index=row.prompt_index,
        response=row.response,
    )
