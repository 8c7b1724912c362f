"""Computes the embeddings that stand for the absence of a token."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

BASELINES = ("zero", "mean")
"""Nothing, or the mean over the vocabulary's input embeddings."""


@torch.no_grad()
def baseline_embedding(model: PreTrainedModel, name: str) -> Float[Tensor, " width"]:
    """Return an embedding that stands for the absence of a token, as the embedding layer would give it.

    Args:
        model: Causal language model.
        name: One of :data:`BASELINES`.

    Returns:
        [width] Embedding, at least float32, on the device of the embedding layer.

    Raises:
        ValueError: The name is unknown.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2))
        >>> bool(torch.allclose(baseline_embedding(model, "mean"), model.transformer.wte.weight.mean(0)))
        True
    """
    if name not in BASELINES:
        raise ValueError(f"baseline={name}: expected one of {', '.join(BASELINES)}")
    layer = model.get_input_embeddings()
    weight = layer.weight
    assert isinstance(weight, Tensor)
    wide = torch.promote_types(weight.dtype, torch.float32)
    width = layer(torch.zeros(1, dtype=torch.long, device=weight.device)).shape[-1]
    total = torch.zeros(width, dtype=wide, device=weight.device)
    if name == "mean":
        # Through the layer, not from its weight: some families scale what they look up.
        for ids in torch.arange(len(weight), device=weight.device).split(4096):
            total += layer(ids).sum(0, dtype=wide)
    return total / len(weight)
