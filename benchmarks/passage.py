"""Real English text of a wanted length, whose token ids survive the way through text and back."""

from __future__ import annotations

from pathlib import Path

from serve import Task
from transformers import PreTrainedTokenizerBase

TEXT = Path(__file__).with_name("passage.txt").read_text()


def passage(tokenizer: PreTrainedTokenizerBase, prompt: int, response: int) -> Task:
    """A piece of the text with N prompt and M response tokens; no template, nothing added in front.

    Peers take text, not ids, so the prompt alone, and prompt and response together, must become the same ids.

    Args:
        tokenizer: the model's.
        prompt: N.
        response: M.

    Raises:
        ValueError: the text has no such piece.
    """
    for start in (0, *(place + 1 for place, letter in enumerate(TEXT) if letter == " ")):
        ids = tokenizer(TEXT[start:])["input_ids"][: prompt + response]
        if len(ids) < prompt + response:
            break
        first, rest = tokenizer.decode(ids[:prompt]), tokenizer.decode(ids[prompt:])
        if tokenizer(first)["input_ids"] == ids[:prompt] and tokenizer(first + rest)["input_ids"] == ids:
            return Task(ids, response, first, rest)
    raise ValueError(f"{TEXT[:30]}... has no piece of {prompt} + {response} tokens that survives decoding")
