"""Generates responses greedily, as the paper does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel


@torch.no_grad()
def greedy(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, stops: Sequence[int]
) -> list[tuple[list[int], bool]]:
    """Generate responses for a batch of prompts, each time with the most probable token.

    Shorter prompts are padded on the left and masked, so each prompt gets the response it would get alone.

    Args:
        model: Causal language model.
        prompts: [batch] lists of ids, as fed to the model.
        max_new_tokens: Maximum number of response tokens.
        stops: Ids that end a response; they are not part of the response.

    Returns:
        For each prompt, the ids of the response, and whether the response ended with one of ``stops``.
    """
    pad = stops[0] if stops else 0
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(stops) or None, pad_token_id=pad
    )
    # A model's own generation settings (penalties, sampling) would fill every field that is not set here.
    shipped, model.generation_config = model.generation_config, GenerationConfig()
    try:
        output = model.generate(
            ids.to(model.device), attention_mask=mask.to(model.device), generation_config=settings
        )
    finally:
        model.generation_config = shipped
    return [_until_stop(row, stops) for row in output[:, longest:].tolist()]


def _until_stop(ids: list[int], stops: Sequence[int]) -> tuple[list[int], bool]:
    """Cut ids before the first of ``stops``; return them and whether there was one."""
    end = next((index for index, token in enumerate(ids) if token in stops), None)
    return (ids, False) if end is None else (ids[:end], True)
