"""The Python interface: explain a response."""

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
        lm: from :func:`shiftlens.load`.
        prompt: what the user says; the model's template is put around it.
        response: the response to explain; ``None`` is the model's own greedy one.
        max_new_tokens: longest response of its own (300 in the paper).
        mode: attribution engine: ``auto``, ``reverse``, ``forward``, ``mixed`` or ``naive``; the numbers are the
            same.
        target: ``probability``, ``log_probability``, or ``logit_difference`` to the strongest other token.
        include_response: explain by earlier response tokens too.
        method: How the weight of a prompt token is measured: ``gradient`` (gradient x embedding), ``ablation``
            (the exact difference that setting one embedding to zero makes), or a
            :class:`~shiftlens.attribution.methods.Method`.

    Returns:
        The raw importance with everything needed to read it.

    Raises:
        EncodeError: the prompt has no token.
        ValueError: the mode or target is unknown.
    """
    encoded = encode(Prompt("prompt", prompt, ((0, len(prompt)),)), lm.tokenizer, lm.template)
    given = None if response is None else tuple(lm.tokenizer(response, add_special_tokens=False)["input_ids"])
    request = Request(
        "", encoded.input_ids, encoded.prompt_index, given, max_new_tokens, lm.stops, include_response,
        method_from_config(method),
    )  # fmt: skip
    (row,) = AttributionModule(lm, engine=Engine(mode, target=target)).predict_step([request])
    return Attribution(
        importance=row.importance(target),
        prompt_tokens=list(encoded.tokens),
        response_tokens=token_texts(lm.tokenizer, row.response_ids.tolist()),
        probability=row.probability,
        gradient=row.values,
        input_ids=row.input_ids,
        prompt_index=row.prompt_index,
        response=row.response,
    )
