"""Cuts pieces of given length from an English text whose token ids do not change by decoding and encoding."""

from __future__ import annotations

from pathlib import Path

from serve import Task
from transformers import PreTrainedTokenizerBase

TEXT = Path(__file__).with_name("passage.txt").read_text()


def passage(tokenizer: PreTrainedTokenizerBase, prompt: int, response: int) -> Task:
    """Return a piece of the text with N prompt and M response tokens, without template or special tokens.

    The peers take text, not token ids. So the text of the prompt, and that of prompt and response together, must
    be encoded to the same ids again.

    Args:
        tokenizer: Tokenizer of the model.
        prompt: N, the number of prompt tokens.
        response: M, the number of response tokens.

    Raises:
        ValueError: The text contains no such piece.
    """
    for start in (0, *(index + 1 for index, letter in enumerate(TEXT) if letter == " ")):
        ids = tokenizer(TEXT[start:])["input_ids"][: prompt + response]
        if len(ids) < prompt + response:
            break
        first, rest = tokenizer.decode(ids[:prompt]), tokenizer.decode(ids[prompt:])
        if tokenizer(first)["input_ids"] == ids[:prompt] and tokenizer(first + rest)["input_ids"] == ids:
            return Task(ids, response, first, rest)
    raise ValueError(f"{TEXT[:30]}... has no piece of {prompt} + {response} tokens that survives decoding")
