"""The seam behind which attribution engines live: same numbers, different cost."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.forward import forward
from shiftlens.attribution.naive import naive
from shiftlens.attribution.reverse import reverse

MODES = ("auto", "reverse", "forward", "naive")
CHUNK = 16
"""Tangents or cotangents carried through the model at once."""
REVERSE_ROW_COST = 1.6
"""Time of a row in reverse against one in forward mode; a round figure from timings of 135M
parameters on 2 CPU cores in float32, where the ratio lay between 0.7 and 2."""


def choose(mode: str, sources: int, response: int) -> str:
    """Pick the cheaper engine by the rows of tokens that each one multiplies with the weights.

    Forward carries one tangent per prompt token from its place to the end, N (N/2 + M) rows; reverse
    one cotangent per response token back to the prompt, M (N + M/2) rows.

    Args:
        mode: one of :data:`MODES`; anything but ``auto`` is returned as it is.
        sources: number of prompt tokens N.
        response: number of response tokens M.

    Raises:
        ValueError: the mode is unknown.

    Example:
        >>> choose("auto", 30, 300), choose("auto", 300, 30)
        ('forward', 'reverse')
    """
    if mode not in MODES:
        raise ValueError(f"saliency.mode={mode}: expected one of {', '.join(MODES)}")
    if mode != "auto":
        return mode
    forward_rows = sources * (sources / 2 + response)
    reverse_rows = REVERSE_ROW_COST * response * (sources + response / 2)
    return "forward" if forward_rows <= reverse_rows else "reverse"


def log_gradient(
    model: PreTrainedModel,
    input_ids: Sequence[int],
    prompt_index: Sequence[int],
    response: int,
    mode: str = "auto",
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "prompt response"], Float[Tensor, " response"]]:
    """``<d log p(y_m) / d E[x_n], E[x_n]>`` and ``log p(y_m)`` of one sample, exactly.

    Args:
        model: causal language model with frozen parameters.
        input_ids: [total] ids fed; the last ``response`` of them are the response.
        prompt_index: [prompt] positions of the prompt tokens.
        response: number of response tokens M; 0 gives an empty result.
        mode: one of :data:`MODES`.
        chunk: how many derivatives are carried at once; memory grows with it, numbers do not change.

    Returns:
        [prompt, response] and [response], on the CPU.
    """
    if response == 0:
        return torch.zeros(len(prompt_index), 0), torch.zeros(0)
    engines = {"forward": forward, "reverse": reverse, "naive": naive}
    engine = engines[choose(mode, len(prompt_index), response)]
    ids, sources = torch.tensor(input_ids), torch.tensor(prompt_index)
    try:
        gradient, logp = engine(model, ids, sources, response, chunk)
    except NotImplementedError:  # some operations, such as those of expert layers, have no forward derivative
        if mode != "auto" or engine is reverse:
            raise
        gradient, logp = reverse(model, ids, sources, response, chunk)
    return gradient.cpu(), logp.cpu()
