"""Exact attribution in mixed mode: tangents from the sources and cotangents from the response meet at a cut.

Ahead of the cut the tangents of the sources move forward, behind it the cotangents of the response tokens move
back. Positions behind see those ahead through keys and values alone, so the chain rule closes with an inner
product there, layer by layer: ``A[n, m] = sum <dK[n], d f_m / d K> + <dV[n], d f_m / d V>``.

With N sources first and M response tokens behind, a cut at c carries c^2/2 + M (N - c) + M^2/2 token rows for c
up to N, and N c - N^2/2 + (N + M - c)^2/2 beyond. Both are least at c = M, with N M rows: one for each number that
is wanted. Forward mode is a cut behind the text (N M + N^2/2 rows), reverse mode one ahead of the sources (N M +
M^2/2). In the terms of automatic differentiation this eliminates from both ends (Griewank & Walther, Evaluating
Derivatives, chapter 9).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.llama.cotangents import entrances, llama_cotangents
from shiftlens.attribution.llama.layer import takes
from shiftlens.attribution.llama.tangents import Crossing, llama_tangents
from shiftlens.attribution.modes import generic
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.attribution.modes.primal import primal_pass
from shiftlens.attribution.targets import Reading, check_places


def mixed(
    model: PreTrainedModel,
    input_ids: Int[Tensor, " total"],
    sources: Int[Tensor, " prompt"],
    response: int,
    chunk: int,
    target: str = "log_probability",
    *,
    cut: int,
    written_out: bool = True,
) -> tuple[Float[Tensor, "prompt response"], Reading]:
    """``A[n, m] = <d f(y_m) / d E[s_n], E[s_n]>`` for all sources and response tokens.

    Args:
        model: a causal language model with frozen parameters; any family that has plain attention.
        input_ids: [total] ids fed; the last ``response`` of them are the response.
        sources: [prompt] positions to attribute to, in any order, all before the last token.
        response: number of response tokens M, at least 1.
        chunk: derivatives at once, of either kind; bounds the memory, but for the tangents of keys and values at
            the cut, which are kept for all sources ahead of it.
        target: f, see :func:`shiftlens.attribution.targets.at_logits`.
        cut: 0 to total - 1. Tangents are carried for sources ahead of it, cotangents for response tokens that are
            predicted at it or behind.
        written_out: take the written-out layers where the model allows it; without, the generic ones.

    Returns:
        A [prompt, response] and how the model reads the response, on the CPU, at least float32.

    Raises:
        ValueError: ``response``, ``chunk``, ``cut`` or a source is out of range, or the model is one that only
            reverse mode takes, see :func:`~shiftlens.attribution.modes.generic.check_body`.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> model, ids = LlamaForCausalLM(config), torch.arange(9)
        >>> found = [mixed(model, ids, torch.tensor([1, 3]), 4, 8, cut=cut)[0] for cut in (0, 5, 8)]
        >>> bool(torch.allclose(found[0], found[1])), bool(torch.allclose(found[1], found[2]))
        (True, True)
    """
    check_places(len(input_ids), sources.tolist(), response, chunk)
    if not 0 <= cut < len(input_ids):
        raise ValueError(f"cut must lie in 0..{len(input_ids) - 1}, got {cut}")
    return meet(model, input_ids, sources, response, chunk, target, cut=cut, written_out=written_out)


def meet(
    model: PreTrainedModel,
    input_ids: Int[Tensor, " total"],
    sources: Int[Tensor, " prompt"],
    response: int,
    chunk: int,
    target: str,
    *,
    cut: int,
    written_out: bool = True,
) -> tuple[Float[Tensor, "prompt response"], Reading]:
    """:func:`mixed`, of arguments that were checked; what forward and reverse mode are ends of."""
    by_hand = written_out and takes(model, len(input_ids))
    tangents, cotangents = (
        (llama_tangents, llama_cotangents) if by_hand else (generic.tangents, generic.cotangents)
    )
    start = len(input_ids) - 1 - response  # predicts the first response token
    near = min(max(cut - start, 0), response)  # response tokens that are predicted ahead of the cut
    order = sources.argsort()
    ahead, behind = order[sources[order] < cut], order[sources[order] >= cut]
    ids = input_ids.to(model.get_input_embeddings().weight.device)
    with plain_attention(model), torch.no_grad():
        modules = entrances(model) if by_hand and near < response else ()
        primal = primal_pass(model, ids, response, target, modules)
        if not by_hand:
            generic.check_body(model, primal)
        A = primal.reading.log_probability.new_zeros(len(sources), response)
        crossings: list[Crossing] = []
        for rows in ahead.split(chunk) if len(ahead) else ():
            moved, crossing = tangents(
                model, primal, sources[rows].tolist(), cut, hidden=near > 0, crossing=near < response
            )
            crossings += crossing
            if moved is not None:
                moved = moved[:, -near:].to(A)
                at_head = primal.gradient[near - moved.shape[1] : near].to(A)
                A[rows.to(A.device), near - moved.shape[1] : near] = (moved * at_head).sum(-1)
        own, places = primal.embeddings[sources[behind]].to(A), (sources[behind] - cut).to(A.device)
        for columns in torch.arange(near, response).split(chunk) if near < response else ():
            moved, met = cotangents(model, primal, cut, columns.tolist(), crossings)
            A[ahead[:, None].to(A.device), columns.to(A.device)] = met.to(A)
            found = torch.einsum("mnd,nd->nm", moved.to(A).index_select(1, places), own)
            A[behind[:, None].to(A.device), columns.to(A.device)] = found
    return A.cpu(), Reading(*(values.cpu() for values in primal.reading))
