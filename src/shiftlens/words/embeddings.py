"""Embeddings of whole words, made from the embeddings of their sub-tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, dropwhile
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from shiftlens.errors import ConfigError

_SPACE_MARKS = "▁Ġ "
_SPACE_BYTE = "<0x20>"


def word_tokens(tokenizer: Any, words: Sequence[str]) -> list[list[int]]:
    """Ids of the sub-tokens of each word as it stands in running text.

    A word is tokenized with a space before it and without special tokens. A tokenizer that puts a space
    marker of its own first yields a piece that is nothing but space (LLaMA: ``▁``, ``▁the``), and so does one
    that has no piece for the space and the first letter together; leading pieces of this kind are dropped.

    Args:
        tokenizer: any Hugging Face tokenizer.
        words: the words.

    Returns:
        One list of ids per word; empty where the tokenizer leaves nothing of the word.

    Source:
        Wu et al., arXiv 2310.00492, the feed-forward analysis.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> core = Tokenizer(models.BPE({"▁": 0, "u": 1, "p": 2, "▁u": 3}, [("▁", "u")]))
        >>> core.pre_tokenizer = pre_tokenizers.Metaspace()
        >>> word_tokens(PreTrainedTokenizerFast(tokenizer_object=core), ["up", "pp"])
        [[3, 2], [2, 2]]
    """
    if not words:
        return []
    spaced = [f" {word}" for word in words]
    ids = tokenizer(spaced, add_special_tokens=False, padding=False, truncation=False)["input_ids"]
    used = sorted(set(chain.from_iterable(ids)))
    spaces = {
        id_
        for id_, piece in zip(used, tokenizer.convert_ids_to_tokens(used), strict=True)
        if not piece.strip(_SPACE_MARKS) or piece == _SPACE_BYTE
    }
    return [list(dropwhile(spaces.__contains__, pieces)) for pieces in ids]


def word_embeddings(
    tokenizer: Any,
    words: Sequence[str],
    embedding: Float[Tensor, "vocab width"] | Float[np.ndarray, "vocab width"],
) -> Float[Tensor, "words width"]:
    """The mean of each word's sub-token embeddings.

    Args:
        tokenizer: any Hugging Face tokenizer.
        words: the words, see :func:`word_tokens` for how they are tokenized.
        embedding: [vocab, width] input or output embedding of the model.

    Returns:
        [words, width] on the device of ``embedding``, in float32 (float64 for a float64 embedding), so that
        half-precision weights are averaged without a further rounding. A word of which the tokenizer leaves
        nothing is all zero, and so has no activation anywhere.

    Raises:
        ConfigError: the tokenizer yields ids that the embedding does not have.

    Source:
        Wu et al., arXiv 2310.00492, the feed-forward analysis.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> core = Tokenizer(models.WordPiece({"up": 0, "##on": 1, "[UNK]": 2}))
        >>> core.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
        >>> word_embeddings(tokenizer, ["up", "upon"], np.array([[1.0], [2.0], [9.0]])).tolist()
        [[1.0], [1.5]]
    """
    table = torch.from_numpy(embedding) if isinstance(embedding, np.ndarray) else embedding.detach()
    pieces = word_tokens(tokenizer, words)
    used, place = np.unique(np.fromiter(chain.from_iterable(pieces), dtype=np.int64), return_inverse=True)
    if used.size and used[-1] >= len(table):
        raise ConfigError(
            f"the tokenizer yields id {used[-1]}, but the embedding has {len(table)} rows: not of one model"
        )
    # Only the rows in use are widened: a whole vocabulary in float32 can be gigabytes.
    rows = table[torch.from_numpy(used).to(table.device)]
    rows = rows if rows.dtype == torch.float64 else rows.float()
    lengths = [0, *(len(ids) for ids in pieces)][: len(pieces)]
    return torch.nn.functional.embedding_bag(
        torch.from_numpy(place).to(table.device),
        rows,
        torch.from_numpy(np.cumsum(lengths, dtype=np.int64)).to(table.device),
        mode="mean",
    )
