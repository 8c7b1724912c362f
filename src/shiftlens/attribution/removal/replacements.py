"""Makes the embedding that takes the place of a removed one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

_ROWS = 4096  # of the embedding table at once


@torch.no_grad()
def replacement(model: PreTrainedModel, by: str, neutral: int | None = None) -> Float[Tensor, " width"]:
    """Return the embedding that takes the place of a removed one.

    Embeddings come from the layer, not from its weight, because some families scale what they look up.

    Args:
        model: Causal language model.
        by: ``zero``, ``mean``, ``neutral``, or ``delete``, for which nothing takes the place: zeros.
        neutral: Id for ``neutral``; ``None`` for the token whose embedding is nearest to the mean embedding. It
            stands out least among all tokens, and needs no tokenizer and no choice of a language.

    Raises:
        ValueError: The id is not in the vocabulary.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2))
        >>> bool((replacement(model, "neutral", 3) == model.transformer.wte.weight[3]).all())
        True
    """
    layer = model.get_input_embeddings()
    size, device = layer.weight.shape[0], layer.weight.device
    if neutral is not None and not 0 <= neutral < size:
        raise ValueError(f"neutral={neutral}: expected an id in 0..{size - 1}")
    if by == "neutral" and neutral is not None:
        return torch.as_tensor(layer(torch.tensor([neutral], device=device))[0])
    parts = torch.arange(size, device=device).split(_ROWS)
    if by not in ("mean", "neutral"):
        return torch.zeros_like(layer(parts[0][:1])[0])
    total = torch.stack([_wide(layer(part)).sum(0) for part in parts]).sum(0)
    mean = total / size  # [width]
    if by == "mean":
        return mean
    far = torch.cat([(_wide(layer(part)) - mean).square().sum(-1) for part in parts])  # [vocab]
    return torch.as_tensor(layer(far.argmin()[None])[0])


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
