"""Exact importance by forward-mode differentiation: one direction per prompt token gives every response token.

The importance of prompt token n for response token m is a derivative along a single direction, the
embedding of n itself (paper, section 3.1, with log f in place of f). Reverse mode needs one backward
pass per response token; forward mode carries N tangents through the model once and reads off all M
columns. Prompts are mostly shorter than responses, and the tangents need no graph to be kept.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.modes.mixed import meet
from shiftlens.attribution.targets import Reading, check_places


def forward(
    model: PreTrainedModel,
    input_ids: Int[Tensor, " total"],
    sources: Int[Tensor, " prompt"],
    response: int,
    chunk: int,
    target: str = "log_probability",
    *,
    written_out: bool = True,
) -> tuple[Float[Tensor, "prompt response"], Reading]:
    """Importance of every source token for every response token.

    ``A[n, m] = <d f(y_m | x_<m) / d E[s_n], E[s_n]>``; with f = log p, times p(y_m) it is the importance
    I[n, m] of the paper (section 3.1).

    Args:
        model: a causal language model; any family that has plain attention. It is left as found.
        input_ids: [total] the ids fed: template, prompt and response.
        sources: [prompt] positions of the tokens to explain by, in any order, all before the last token.
        response: number of ids at the end that are the response, at least 1.
        chunk: tangents per pass; memory grows with it, results do not change.
        target: f, see :func:`shiftlens.attribution.targets.at_logits`.
        written_out: take the written-out tangents where the model allows it; without, the generic ones.

    Returns:
        A, [prompt, response], rows in the order of ``sources``, float64 for a float64 model, else float32, and
        how the model reads the response.

    Raises:
        ValueError: if ``response``, ``chunk`` or a source is out of range.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=19, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2, pad_token_id=None)
        >>> A, reading = forward(LlamaForCausalLM(config), torch.arange(9), torch.tensor([1, 3, 4]), 4, chunk=2)
        >>> A.shape, reading.rank.shape
        (torch.Size([3, 4]), torch.Size([4]))
    """
    check_places(len(input_ids), sources.tolist(), response, chunk)
    return meet(
        model, input_ids, sources, response, chunk, target, cut=len(input_ids) - 1, written_out=written_out
    )
