"""Exact attribution by vector-Jacobian products: a chunk of response tokens in one backward pass."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.attention import plain_attention
from shiftlens.hooks import EmbeddingTap, HeadTap


def reverse(
    model: PreTrainedModel,
    input_ids: Int[Tensor, " total"],
    sources: Int[Tensor, " prompt"],
    response: int,
    chunk: int,
) -> tuple[Float[Tensor, "prompt response"], Float[Tensor, " response"]]:
    """``A[n, m] = <d log p(y_m) / d E[s_n], E[s_n]>`` for all prompt and response tokens.

    One teacher-forced forward pass per chunk, cut at the chunk's last token (later tokens have no
    influence), then one batched vector-Jacobian product. What enters the product is
    ``d log p / d h`` at the output layer's input h, which one backward through the head gives for
    the whole chunk.

    Args:
        model: causal language model with frozen parameters.
        input_ids: [total] ids fed; the last ``response`` of them are the response.
        sources: [prompt] positions to attribute to, all before the response.
        response: number of response tokens M, at least 1.
        chunk: response tokens per backward pass; bounds the memory.

    Returns:
        A [prompt, response] and log p(y_m) [response], on the CPU, in the model's dtype.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> A, logp = reverse(LlamaForCausalLM(config), torch.tensor([1, 2, 3, 4]), torch.tensor([0, 1]), 2, 8)
        >>> A.shape, logp.shape
        (torch.Size([2, 2]), torch.Size([2]))
    """
    first = len(input_ids) - response
    columns, log_probabilities = [], []
    with torch.enable_grad(), plain_attention(model):
        for start in range(first, len(input_ids), chunk):
            targets = torch.arange(start, min(start + chunk, len(input_ids)))
            A, logp = _chunk(model, input_ids[: targets[-1]], sources, targets, input_ids[targets])
            columns.append(A.cpu())
            log_probabilities.append(logp.cpu())
    return torch.cat(columns, dim=1), torch.cat(log_probabilities)


def _chunk(
    model: PreTrainedModel,
    fed: Int[Tensor, " fed"],
    sources: Int[Tensor, " prompt"],
    targets: Int[Tensor, " chunk"],
    wanted: Int[Tensor, " chunk"],
) -> tuple[Float[Tensor, "prompt chunk"], Float[Tensor, " chunk"]]:
    with EmbeddingTap(model) as embedding, HeadTap(model) as head:
        # y_m is predicted at the position before it.
        logits = model(fed[None].to(model.device), use_cache=False, logits_to_keep=targets - 1).logits[0]
    assert head.leaf is not None and head.body is not None and embedding.embedding is not None
    logp = torch.log_softmax(logits.to(_wide(logits.dtype)), dim=-1)
    logp = logp.gather(-1, wanted[:, None].to(logits.device))[:, 0]
    (at_head,) = torch.autograd.grad(logp.sum(), head.leaf)  # [1, chunk, width]
    count = len(targets)
    cotangents = at_head.new_zeros(count, *at_head.shape)
    cotangents[torch.arange(count), 0, torch.arange(count)] = at_head[0]
    (gradients,) = torch.autograd.grad(head.body, embedding.embedding, cotangents, is_grads_batched=True)
    gradients = gradients[:, 0].index_select(1, sources.to(gradients.device))  # [chunk, prompt, width]
    chosen = embedding.embedding[0].detach().index_select(0, sources.to(gradients.device))
    wide = _wide(gradients.dtype)
    return torch.einsum("mnd,nd->nm", gradients.to(wide), chosen.to(wide)), logp.detach()


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Half-precision sums over the vocabulary and the width are taken in float32."""
    return torch.promote_types(dtype, torch.float32)
