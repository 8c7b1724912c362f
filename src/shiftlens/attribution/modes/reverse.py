"""Computes exact attributions in reverse mode: vector-Jacobian products, a chunk of response tokens at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.llama.layer import takes
from shiftlens.attribution.modes.lrp_rules import differentiated
from shiftlens.attribution.modes.mixed import meet
from shiftlens.attribution.targets import Reading, at_logits, check_places
from shiftlens.attribution.variant import PLAIN, Variant
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
    variant: Variant = PLAIN,
) -> tuple[Float[Tensor, "prompt response"], Reading]:
    """Compute ``A[n, m] = <d f(y_m) / d E[s_n], E[s_n]>`` for all sources and response tokens.

    The backward pass through the body starts from ``d f / d h``, where h is the input of the output layer; one
    backward pass through the output layer gives ``d f / d h`` for many response tokens. With hand-written
    derivatives (LLaMA-type layers) one ordinary pass serves all chunks. Every other family needs one ordinary pass
    per chunk, which ends before the chunk's last token because later tokens have no influence, and then one
    batched vector-Jacobian product. That product scales each token's gradient to a largest entry of 1, so that
    none underflows in half precision.

    Args:
        model: Causal language model with frozen parameters.
        input_ids: [total] ids fed to the model; the last ``response`` of them are the response.
        sources: [prompt] positions to attribute to, all before the last token.
        response: Number of response tokens M, at least 1.
        chunk: Number of response tokens per backward pass; bounds the memory.
        target: Function f, see :func:`shiftlens.attribution.targets.at_logits`.
        written_out: Whether to use hand-written derivatives where the model has them; otherwise generic ones.
        variant: What is carried through the model.

    Returns:
        A, [prompt, response], and log probabilities and ranks of the response; on the CPU, at least float32.

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
        # Sources do not influence response tokens predicted before them, so cotangents end at the first source.
        cut = min(sources.tolist(), default=len(input_ids) - 1)
        return meet(model, input_ids, sources, response, chunk, target, cut=cut, variant=variant)
    first = len(input_ids) - response
    columns, readings = [], []
    with torch.enable_grad(), differentiated(model, variant):
        for start in range(first, len(input_ids), chunk):
            targets = torch.arange(start, min(start + chunk, len(input_ids)))
            part = variant.columns(slice(start - first, start - first + chunk))
            A, reading = _chunk(
                model, input_ids[: targets[-1]], sources, targets, input_ids[targets], target, part
            )
            columns.append(A.cpu())  # [prompt, chunk]
            readings.append([values.cpu() for values in reading])
    return torch.cat(columns, dim=1), Reading(*map(torch.cat, zip(*readings, strict=True)))


def _chunk(
    model: PreTrainedModel,
    fed: Int[Tensor, " fed"],
    sources: Int[Tensor, " prompt"],
    targets: Int[Tensor, " chunk"],
    wanted: Int[Tensor, " chunk"],
    target: str,
    variant: Variant,
) -> tuple[Float[Tensor, "prompt chunk"], Reading]:
    """Compute the columns of A for one chunk of response tokens.

    Args:
        model: Causal language model with plain attention.
        fed: [fed] all ids before the chunk's last token.
        sources: [prompt] positions to attribute to.
        targets: [chunk] positions of the chunk's tokens.
        wanted: [chunk] ids of the chunk's tokens.
        target: Function f.
        variant: What is carried through the model, for these response tokens.
    """
    with EmbeddingTap(model) as embedding, HeadTap(model) as head:
        # Each token is predicted at the position before it, so the last positions predict the chunk.
        # [chunk, vocab]
        logits = model(fed[None].to(model.device), use_cache=False, logits_to_keep=len(targets)).logits[0]
    assert head.leaf is not None and head.body is not None and embedding.embedding is not None
    at_output, reading = at_logits(logits, wanted.to(logits.device), target, variant.foils)
    (at_head,) = torch.autograd.grad(logits, head.leaf, at_output.to(logits.dtype))  # [1, chunk, hidden]
    scale = at_head[0].abs().amax(-1).clamp_min(torch.finfo(at_head.dtype).tiny)  # [chunk]
    count = len(targets)
    cotangents = head.body.new_zeros(count, *at_head.shape)  # [chunk, 1, chunk, hidden], diagonal in the chunk
    cotangents[torch.arange(count), 0, torch.arange(count)] = (at_head[0] / scale[:, None]).to(head.body)
    # [chunk, 1, fed, width]
    (gradients,) = torch.autograd.grad(head.body, embedding.embedding, cotangents, is_grads_batched=True)
    A = gradients.new_zeros(len(sources), count, dtype=scale.dtype)  # [prompt, chunk]
    inside = sources < len(fed)  # [prompt]; later tokens have no influence on the chunk
    positions = sources[inside].to(gradients.device)  # [inside]
    at_sources = gradients[:, 0].index_select(1, positions).to(A)  # [chunk, inside, width]
    directions = variant.direction(embedding.embedding[0].detach().index_select(0, positions)).to(A)
    A[inside.to(A.device)] = torch.einsum("mnd,nd->nm", at_sources, directions) * scale.to(A.device)
    return A, reading
