"""Finds the token ids that end a response."""

from __future__ import annotations

from pathlib import Path

from transformers import GenerationConfig, PreTrainedTokenizerBase


def stop_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Read the ids that end a response: those of the generation settings and the tokenizer's end token.

    Args:
        folder: Folder of the model; its ``generation_config.json`` is read if there is one, its weights are not.
        tokenizer: Tokenizer of the model.

    Returns:
        Ids in rising order.
    """
    stops: set[int] = set()
    if tokenizer.eos_token_id is not None:
        stops.add(int(tokenizer.eos_token_id))
    if (folder / "generation_config.json").exists():
        ids = GenerationConfig.from_pretrained(folder).eos_token_id
        stops.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return sorted(stops)
