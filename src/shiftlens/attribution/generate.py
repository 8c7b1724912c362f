"""Greedy responses, the way the paper takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel


@torch.no_grad()
def greedy(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, stops: Sequence[int]
) -> list[tuple[list[int], bool]]:
    """The most probable token, again and again, for a batch of prompts at once.

    Shorter prompts are padded on the left and masked, so a prompt gets the response it would get alone.

    Args:
        model: causal language model.
        prompts: [batch] of ids as fed.
        max_new_tokens: longest response.
        stops: ids that end a response; not part of it.

    Returns:
        For each prompt the response's ids, and whether the model ended it itself.
    """
    pad = stops[0] if stops else 0
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(stops) or None, pad_token_id=pad
    )
    # Folders may ship penalties or sampling settings, which would fill every field left open here.
    shipped, model.generation_config = model.generation_config, GenerationConfig()
    try:
        output = model.generate(
            ids.to(model.device), attention_mask=mask.to(model.device), generation_config=settings
        )
    finally:
        model.generation_config = shipped
    return [_until_stop(row, stops) for row in output[:, longest:].tolist()]


def _until_stop(ids: list[int], stops: Sequence[int]) -> tuple[list[int], bool]:
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    return (ids, False) if end is None else (ids[:end], True)
