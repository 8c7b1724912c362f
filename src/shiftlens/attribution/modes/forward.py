"""Computes exact attributions by forward-mode differentiation: one tangent per prompt token.

The importance of prompt token n for response token m is a derivative along a single direction, the embedding of
token n itself (paper, section 3.1, with log f in place of f). So one tangent [positions, width] per prompt token,
carried through the model once, gives the importance for all M response tokens, where reverse mode needs one
backward pass per response token. Prompts are mostly shorter than responses, and forward mode keeps no graph.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.modes.mixed import meet
from shiftlens.attribution.targets import Reading, check_places
from shiftlens.attribution.variant import PLAIN, Variant


def forward(
    model: PreTrainedModel,
    input_ids: Int[Tensor, " total"],
    sources: Int[Tensor, " prompt"],
    response: int,
    chunk: int,
    target: str = "log_probability",
    *,
    written_out: bool = True,
    variant: Variant = PLAIN,
) -> tuple[Float[Tensor, "prompt response"], Reading]:
    """Compute the attribution of every source token for every response token.

    ``A[n, m] = <d f(y_m | x_<m) / d E[s_n], E[s_n]>``. For f = log p, the importance I[n, m] of the paper (section
    3.1) is A[n, m] times p(y_m).

    Args:
        model: Causal language model of any family that runs with plain attention; not changed.
        input_ids: [total] ids fed to the model: template, prompt and response.
        sources: [prompt] positions to attribute to, in any order, all before the last token.
        response: Number of ids at the end that are the response, at least 1.
        chunk: Number of tangents computed together; memory grows with this number, results do not change.
        target: Function f, see :func:`shiftlens.attribution.targets.at_logits`.
        written_out: Whether to use hand-written derivatives where the model has them; otherwise generic ones.
        variant: What is carried through the model.

    Returns:
        A, [prompt, response], with rows in the order of ``sources``, float64 for a float64 model, else float32;
        and log probabilities and ranks of the response.

    Raises:
        ValueError: ``response``, ``chunk`` or a source is out of range.

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
    # Forward mode is mixed mode with the cut after the last position that predicts a response token.
    return meet(
        model, input_ids, sources, response, chunk, target, cut=len(input_ids) - 1, written_out=written_out,
        variant=variant,
    )  # fmt: skip
