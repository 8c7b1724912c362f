"""Exact attribution one backward pass per response token: slow, short, and the yardstick of the others."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.hooks import EmbeddingTap


def naive(
    model: PreTrainedModel,
    input_ids: Int[Tensor, " total"],
    sources: Int[Tensor, " prompt"],
    response: int,
    chunk: int,
) -> tuple[Float[Tensor, "prompt response"], Float[Tensor, " response"]]:
    """``A[n, m] = <d log p(y_m) / d E[s_n], E[s_n]>`` with the gradient that the backward hook catches.

    Args:
        model: causal language model with frozen parameters; keeps its own attention.
        input_ids: [total] ids fed; the last ``response`` of them are the response.
        sources: [prompt] positions to attribute to, all before the response.
        response: number of response tokens M, at least 1.
        chunk: not used; response tokens are always taken one at a time.

    Returns:
        A [prompt, response] and log p(y_m) [response], on the CPU.
    """
    columns, log_probabilities = [], []
    for position in range(len(input_ids) - response, len(input_ids)):
        with torch.enable_grad(), EmbeddingTap(model) as tap:
            logits = model(input_ids[None, :position].to(model.device), use_cache=False, logits_to_keep=1).logits
            wide = torch.promote_types(logits.dtype, torch.float32)
            logp = torch.log_softmax(logits[0, -1].to(wide), dim=-1)[input_ids[position]]
            logp.backward()
        assert tap.gradient is not None
        assert tap.embedding is not None
        product = (tap.gradient[0].to(wide) * tap.embedding[0].detach().to(wide)).sum(-1)
        columns.append(product[sources.to(product.device)].cpu())
        log_probabilities.append(logp.detach().cpu())
    return torch.stack(columns, dim=1), torch.stack(log_probabilities)
