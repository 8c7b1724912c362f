"""Exact attribution by vector-Jacobian products: a chunk of response tokens in one backward pass."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.llama.layer import takes
from shiftlens.attribution.modes.mixed import meet
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.attribution.targets import Reading, at_logits, check_places
from shiftlens.hooks import EmbeddingTap, HeadTap


def reverse(
    model: PreTrainedModel,
    input_ids: Int[Tensor, " total"],
    sources: Int[Tensor, " prompt"],
    response: int,
    chunk: int,
    target: str = "log_probability",
    *,
    written_out: bool = True,
) -> tuple[Float[Tensor, "prompt response"], Reading]:
    """``A[n, m] = <d f(y_m) / d E[s_n], E[s_n]>`` for all sources and response tokens.

    What enters the body is ``d f / d h`` at the output layer's input h, which one backward through the head
    gives for many response tokens. For LLaMA-type layers one ordinary pass serves all chunks, and the way back is
    written out. For every other family there is one teacher-forced pass per chunk, cut at the
    chunk's last token (later tokens have no influence), then one batched vector-Jacobian product, in which
    each token's gradient is scaled to a largest entry of 1, so that none underflows in half precision.

    Args:
        model: causal language model with frozen parameters.
        input_ids: [total] ids fed; the last ``response`` of them are the response.
        sources: [prompt] positions to attribute to, all before the last token.
        response: number of response tokens M, at least 1.
        chunk: response tokens per backward pass; bounds the memory.
        target: f, see :func:`shiftlens.attribution.targets.at_logits`.
        written_out: take the written-out way back where the model allows it; without, the generic one.

    Returns:
        A [prompt, response] and how the model reads the response, on the CPU, at least float32.

    Raises:
        ValueError: ``response``, ``chunk`` or a source is out of range.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> A, reading = reverse(LlamaForCausalLM(config), torch.tensor([1, 2, 3, 4]), torch.tensor([0, 1]), 2, 8)
        >>> A.shape, reading.rank.shape
        (torch.Size([2, 2]), torch.Size([2]))
    """
    check_places(len(input_ids), sources.tolist(), response, chunk)
    if written_out and takes(model, len(input_ids)):
        # No source can move a response token that is predicted before the first of them.
        cut = min(sources.tolist(), default=len(input_ids) - 1)
        return meet(model, input_ids, sources, response, chunk, target, cut=cut)
    first = len(input_ids) - response
    columns, readings = [], []
    with torch.enable_grad(), plain_attention(model):
        for start in range(first, len(input_ids), chunk):
            targets = torch.arange(start, min(start + chunk, len(input_ids)))
            A, reading = _chunk(model, input_ids[: targets[-1]], sources, targets, input_ids[targets], target)
            columns.append(A.cpu())
            readings.append([values.cpu() for values in reading])
    return torch.cat(columns, dim=1), Reading(*map(torch.cat, zip(*readings, strict=True)))


def _chunk(
    model: PreTrainedModel,
    fed: Int[Tensor, " fed"],
    sources: Int[Tensor, " prompt"],
    targets: Int[Tensor, " chunk"],
    wanted: Int[Tensor, " chunk"],
    target: str,
) -> tuple[Float[Tensor, "prompt chunk"], Reading]:
    with EmbeddingTap(model) as embedding, HeadTap(model) as head:
        # y_m is predicted at the position before it; the chunk ends the text.
        logits = model(fed[None].to(model.device), use_cache=False, logits_to_keep=len(targets)).logits[0]
    assert head.leaf is not None and head.body is not None and embedding.embedding is not None
    at_output, reading = at_logits(logits, wanted.to(logits.device), target)
    (at_head,) = torch.autograd.grad(logits, head.leaf, at_output.to(logits.dtype))  # [1, chunk, hidden]
    scale = at_head[0].abs().amax(-1).clamp_min(torch.finfo(at_head.dtype).tiny)
    count = len(targets)
    cotangents = head.body.new_zeros(count, *at_head.shape)
    cotangents[torch.arange(count), 0, torch.arange(count)] = (at_head[0] / scale[:, None]).to(head.body)
    (gradients,) = torch.autograd.grad(head.body, embedding.embedding, cotangents, is_grads_batched=True)
    A = gradients.new_zeros(len(sources), count, dtype=scale.dtype)
    inside = sources < len(fed)  # tokens behind the chunk have no influence on it
    places = sources[inside].to(gradients.device)
    moved = gradients[:, 0].index_select(1, places).to(A)
    chosen = embedding.embedding[0].detach().index_select(0, places).to(A)
    A[inside.to(A.device)] = torch.einsum("mnd,nd->nm", moved, chosen) * scale.to(A.device)
    return A, reading
