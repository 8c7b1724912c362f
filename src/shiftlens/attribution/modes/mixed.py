"""Computes exact attributions in mixed mode: tangents of the sources and cotangents of the response meet at a cut.

                  tangents                  |                  cotangents
                                            |
                                            |                      f_1   f_2   f_3   response
                                            |                       v     v     v
    layer 3    o --> o --> o -->  dK, dV  --+--  df/dK, df/dV  <--  o <-- o <-- o
               ^     ^     ^                |                       v     v     v
    layer 2    o --> o --> o -->  dK, dV  --+--  df/dK, df/dV  <--  o <-- o <-- o
               ^     ^     ^                |                       v     v     v
    layer 1    o --> o --> o -->  dK, dV  --+--  df/dK, df/dV  <--  o <-- o <-- o
               ^     ^     ^                |
    sources   s_1   s_2   s_3              cut        (positions run from left to right)

Before the cut, the tangents of the sources' embeddings move up through the layers and on to later positions. From
the cut on, the cotangents of the response tokens move down and back to earlier positions. Positions from the cut
on depend on those before it only through keys K and values V, so each + adds one layer's inner products to the
attribution: ``A[n, m] = sum over layers of <dK[n], d f_m / d K> + <dV[n], d f_m / d V>``. A response token that is
predicted before the cut needs no cotangent, and a source from the cut on needs no tangent.

With N sources first and then M response tokens, a cut at c carries c^2/2 + M (N - c) + M^2/2 token rows (one
derivative at one position each) for c up to N, and N c - N^2/2 + (N + M - c)^2/2 beyond. Both are least at c = M,
with N M rows: one for each entry of A. Forward mode is a cut after the text (N M + N^2/2 rows), reverse mode a cut
before the sources (N M + M^2/2). In the terms of automatic differentiation, mixed mode eliminates from both ends
(Griewank & Walther, Evaluating Derivatives, chapter 9).
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.llama.cotangents import entrances, llama_cotangents
from shiftlens.attribution.llama.layer import takes
from shiftlens.attribution.llama.products import Widened
from shiftlens.attribution.llama.tangents import Crossing, llama_tangents
from shiftlens.attribution.modes import generic
from shiftlens.attribution.modes.lrp_rules import differentiated
from shiftlens.attribution.modes.primal import primal_pass
from shiftlens.attribution.targets import Reading, check_places
from shiftlens.attribution.variant import PLAIN, Variant


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
    variant: Variant = PLAIN,
) -> tuple[Float[Tensor, "prompt response"], Reading]:
    """Compute ``A[n, m] = <d f(y_m) / d E[s_n], E[s_n]>`` for all sources and response tokens.

    Args:
        model: Causal language model with frozen parameters, of any family that runs with plain attention.
        input_ids: [total] ids fed to the model; the last ``response`` of them are the response.
        sources: [prompt] positions to attribute to, in any order, all before the last token.
        response: Number of response tokens M, at least 1.
        chunk: Number of tangents, or of cotangents, computed together. Bounds the memory, except for the tangents
            of keys and values at the cut, which are kept for all sources before it.
        target: Function f, see :func:`shiftlens.attribution.targets.at_logits`.
        cut: Position from 0 to total - 1. Sources before it get tangents; response tokens that are predicted at it
            or later get cotangents.
        written_out: Whether to use hand-written derivatives where the model has them; otherwise generic ones.
        variant: What is carried through the model.

    Returns:
        A, [prompt, response], and log probabilities and ranks of the response; on the CPU, at least float32.

    Raises:
        ValueError: ``response``, ``chunk``, ``cut`` or a source is out of range, or only reverse mode supports the
            model, see :func:`~shiftlens.attribution.modes.generic.check_body`.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> model, ids = LlamaForCausalLM(config), torch.arange(9)
        >>> first, *others = [mixed(model, ids, torch.tensor([1, 3]), 4, 8, cut=cut)[0] for cut in (0, 5, 8)]
        >>> bool(torch.allclose(first, others[0])), bool(torch.allclose(first, others[1]))
        (True, True)
    """
    check_places(len(input_ids), sources.tolist(), response, chunk)
    if not 0 <= cut < len(input_ids):
        raise ValueError(f"cut must lie in 0..{len(input_ids) - 1}, got {cut}")
    return meet(
        model, input_ids, sources, response, chunk, target, cut=cut, written_out=written_out, variant=variant
    )


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
    variant: Variant = PLAIN,
) -> tuple[Float[Tensor, "prompt response"], Reading]:
    """Do the work of :func:`mixed` on checked arguments; forward and reverse mode call it with extreme cuts."""
    by_hand = written_out and takes(model, len(input_ids))
    tangents, cotangents = (
        (llama_tangents, llama_cotangents) if by_hand else (generic.tangents, generic.cotangents)
    )
    start = len(input_ids) - 1 - response  # predicts the first response token
    n_early = min(max(cut - start, 0), response)  # response tokens predicted before the cut
    order = sources.argsort()
    # Indices into sources: those before the cut, and those from the cut on.
    early, late = order[sources[order] < cut], order[sources[order] >= cut]
    ids = input_ids.to(model.get_input_embeddings().weight.device)
    with differentiated(model, PLAIN if by_hand else variant), torch.no_grad():
        modules = entrances(model) if by_hand and n_early < response else ()
        with Widened() if by_hand else nullcontext():
            primal = primal_pass(model, ids, response, target, modules, variant)
        if not by_hand:
            generic.check_body(model, primal)
        A = primal.reading.log_probability.new_zeros(len(sources), response)  # [sources, response]
        crossings: list[Crossing] = []
        for batch in early.split(chunk) if len(early) else ():
            # Tangents of h: [batch, positions from the first of these sources up to the cut, hidden].
            derivatives, crossing = tangents(
                model, primal, sources[batch].tolist(), cut, hidden=n_early > 0, crossing=n_early < response
            )
            crossings += crossing
            if derivatives is not None:
                # Earlier response tokens are predicted before the first of these sources; their entries stay zero.
                derivatives = derivatives[:, -n_early:].to(A)  # [batch, response tokens, hidden]
                at_head = primal.gradient[n_early - derivatives.shape[1] : n_early].to(A)
                A[batch.to(A.device), n_early - derivatives.shape[1] : n_early] = (derivatives * at_head).sum(-1)
        # [late sources, width] and [late sources], counted from the cut
        directions, offsets = primal.directions[sources[late]].to(A), (sources[late] - cut).to(A.device)
        for columns in torch.arange(n_early, response).split(chunk) if n_early < response else ():
            # Gradients of embeddings, [columns, positions from the cut on, width]; and [early sources, columns].
            derivatives, early_entries = cotangents(model, primal, cut, columns.tolist(), crossings)
            A[early[:, None].to(A.device), columns.to(A.device)] = early_entries.to(A)
            # [late sources, columns]
            late_entries = torch.einsum("mnd,nd->nm", derivatives.to(A).index_select(1, offsets), directions)
            A[late[:, None].to(A.device), columns.to(A.device)] = late_entries
    return A.cpu(), Reading(*(values.cpu() for values in primal.reading))
