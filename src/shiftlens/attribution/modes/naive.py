"""Computes exact attributions with one backward pass per response token: slow, short, the reference for others."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.modes.lrp_rules import differentiated
from shiftlens.attribution.targets import Reading, at_logits
from shiftlens.attribution.variant import PLAIN, Variant
from shiftlens.hooks import EmbeddingTap, HeadTap


def naive(
    model: PreTrainedModel,
    input_ids: Int[Tensor, " total"],
    sources: Int[Tensor, " prompt"],
    response: int,
    chunk: int,
    target: str = "log_probability",
    *,
    variant: Variant = PLAIN,
) -> tuple[Float[Tensor, "prompt response"], Reading]:
    """Compute ``A[n, m] = <d f(y_m) / d E[s_n], E[s_n]>`` from gradients that a backward hook captures.

    Args:
        model: Causal language model with frozen parameters; keeps its own attention, except for AttnLRP.
        input_ids: [total] ids fed to the model; the last ``response`` of them are the response.
        sources: [prompt] positions to attribute to, all before the last token.
        response: Number of response tokens M, at least 1.
        chunk: Not used; response tokens are always taken one at a time.
        target: Function f, see :func:`shiftlens.attribution.targets.at_logits`.
        variant: What is carried through the model.

    Returns:
        A, [prompt, response], and log probabilities and ranks of the response; on the CPU.
    """
    start = len(input_ids) - response
    with differentiated(model, variant) if variant.lrp else nullcontext():
        columns, readings = zip(
            *(
                _column(model, input_ids, sources, start + i, target, variant.columns(slice(i, i + 1)))
                for i in range(response)
            ),
            strict=True,
        )
    return torch.stack(columns, dim=1), Reading(*map(torch.cat, zip(*readings, strict=True)))


def _column(
    model: PreTrainedModel,
    input_ids: Int[Tensor, " total"],
    sources: Int[Tensor, " prompt"],
    position: int,
    target: str,
    variant: Variant,
) -> tuple[Float[Tensor, " prompt"], Reading]:
    """Compute the column of A, and the reading, of the response token at one position."""
    with torch.enable_grad(), EmbeddingTap(model) as tap, HeadTap(model) as head:
        fed = input_ids[None, :position].to(model.device)  # [1, position]
        logits = model(fed, use_cache=False, logits_to_keep=1).logits[0]  # [1, vocab]
        wanted = input_ids[position : position + 1].to(logits.device)  # [1]
        at_output, reading = at_logits(logits, wanted, target, variant.foils)  # at_output: [1, vocab]
        assert head.leaf is not None and head.body is not None
        (at_head,) = torch.autograd.grad(logits, head.leaf, at_output.to(logits.dtype))  # [1, 1, hidden]
        scale = at_head.abs().max().clamp_min(torch.finfo(at_head.dtype).tiny)
        head.body.backward((at_head / scale).to(head.body))  # scaled against underflow in half precision
    assert tap.gradient is not None
    assert tap.embedding is not None
    direction = variant.direction(tap.embedding[0].detach()).to(at_head)  # [position, width]
    product = (tap.gradient[0].to(at_head) * direction).sum(-1) * scale  # [position]
    # The response token itself and later tokens have no influence.
    product = torch.cat([product, product.new_zeros(len(input_ids) - position)])  # [total]
    return product[sources.to(product.device)].cpu(), Reading(*(values.cpu() for values in reading))
