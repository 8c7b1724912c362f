"""Cuts documents into blocks of equal length, the examples of pre-training."""

from __future__ import annotations

import random
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from shiftlens.errors import ConfigError
from shiftlens.tuning.examples import Example


def split(documents: Sequence[str], held_out: float, seed: int) -> tuple[list[str], list[str]]:
    """Shuffle documents and hold out a share of them; no document is divided.

    Args:
        documents: Documents, at least two.
        held_out: Share of the characters to hold out, more than 0 and less than 1.
        seed: Random seed for the order of the documents.

    Returns:
        Documents to train on, and held-out documents; at least one of each.

    Raises:
        ConfigError: There are fewer than two documents.

    Example:
        >>> [len(documents) for documents in split(["text"] * 10, held_out=0.2, seed=0)]
        [8, 2]
    """
    if len(documents) < 2:
        raise ConfigError(
            f"pretrain.text has {len(documents)} document(s); one to learn from and one to hold out are needed"
        )
    order = list(documents)
    random.Random(seed).shuffle(order)
    goal, taken, apart = held_out * sum(map(len, order)), 0, 0
    while apart < len(order) - 1 and (apart == 0 or taken < goal):
        taken += len(order[apart])
        apart += 1
    return order[apart:], order[:apart]


def blocks(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int, repeats: float = 0.0, seed: int = 0
) -> list[Example]:
    """Join documents into one stream of tokens and cut the stream into blocks.

    Every token of a block except the first carries loss. In the stream, a begin token precedes each document and
    an end token follows it.

    Args:
        documents: Documents to encode.
        tokenizer: Tokenizer with a begin token and an end token.
        length: Number of tokens of a block; tokens at the end of the stream that do not fill a block are dropped.
        repeats: Share of the blocks that contain every passage twice, and so only the first half of their text.
            Repetition favours copying, which most instructions ask for.
        seed: Random seed for the choice of these blocks and for the lengths of passages.

    Returns:
        Blocks in the order of the text.
    """
    stream: list[int] = []
    for document in documents:
        # Not verbose: a document longer than the model's context is cut below, so no warning is needed.
        ids = tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
        stream += [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    whole = [tuple(stream[start : start + length]) for start in range(0, len(stream) - length + 1, length)]
    draw = random.Random(seed)
    return [Example(_twice(ids, draw) if draw.random() < repeats else ids, prompt=0) for ids in whole]


def _twice(ids: tuple[int, ...], draw: random.Random) -> tuple[int, ...]:
    """Return a block of the same length in which every passage, 4 to 24 tokens long, occurs twice in a row."""
    repeated: list[int] = []
    start = 0
    while len(repeated) < len(ids):
        size = draw.randint(4, 24)
        repeated += ids[start : start + size] * 2
        start += size
    return tuple(repeated[: len(ids)])
