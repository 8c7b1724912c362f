"""From documents to blocks of equal length, the examples of pre-training."""

from __future__ import annotations

import random
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from shiftlens.errors import ConfigError
from shiftlens.tuning.examples import Example


def split(documents: Sequence[str], held_out: float, seed: int) -> tuple[list[str], list[str]]:
    """Shuffle documents and set a share of them apart; whole documents, so that none lies on both sides.

    Args:
        documents: at least two.
        held_out: share of the characters to set apart, more than 0 and less than 1.
        seed: of the order.

    Returns:
        Documents to learn from, and held-out ones; at least one each.

    Example:
        >>> [len(part) for part in split(["text"] * 10, held_out=0.2, seed=0)]
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
    """Documents as one stream of tokens, cut into blocks; every token but a block's first carries loss.

    Args:
        documents: the text; each begins with the tokenizer's begin token and ends with its end token.
        tokenizer: the tokenizer.
        length: tokens of a block; the rest of the stream that fills none is dropped.
        repeats: share of the blocks that say every passage twice, and so only half of their text: a push towards
            copying, which most instructions ask for.
        seed: of which blocks these are, and of the lengths of passages.

    Returns:
        Blocks in the order of the text.
    """
    stream: list[int] = []
    for document in documents:
        # Not verbose: a document longer than the model's context is cut below, and needs no warning.
        ids = tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
        stream += [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    whole = [tuple(stream[start : start + length]) for start in range(0, len(stream) - length + 1, length)]
    draw = random.Random(seed)
    return [Example(_twice(ids, draw) if draw.random() < repeats else ids, prompt=0) for ids in whole]


def _twice(ids: tuple[int, ...], draw: random.Random) -> tuple[int, ...]:
    """A block that says every passage of the text, 4 to 24 tokens long, two times."""
    said: list[int] = []
    place = 0
    while len(said) < len(ids):
        size = draw.randint(4, 24)
        said += ids[place : place + size] * 2
        place += size
    return tuple(said[: len(ids)])
