"""Computes embeddings of whole words from the embeddings of their sub-tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, dropwhile
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from shiftlens.errors import ConfigError

_SPACE_MARKS = "▁Ġ "
_SPACE_BYTE = "<0x20>"
WORDS = 2048
"""Number of words whose rows are converted at a time: with a few sub-tokens each, at most about 10,000 rows."""


@runtime_checkable
class RowSource(Protocol):
    """Interface of an embedding table that returns rows by index, as a tensor does."""

    @property
    def device(self) -> torch.device:
        """Device of the rows that indexing returns."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Int64[Tensor, " rows"], /) -> Float[Tensor, "rows width"]: ...


def word_tokens(tokenizer: Any, words: Sequence[str]) -> list[list[int]]:
    """Return the ids of the sub-tokens of each word as the word appears in running text.

    Each word is tokenized with a space before it and without special tokens. Some tokenizers then yield leading
    sub-tokens that stand for the space alone: LLaMA's, for instance, yields ``▁`` and ``▁the`` for *the*, and
    others have no token for the space together with the first letter. Such leading sub-tokens are dropped.

    Args:
        tokenizer: Any Hugging Face tokenizer.
        words: Words to tokenize.

    Returns:
        One list of ids per word; the list is empty if no sub-token is left.

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
    distinct_ids = sorted(set(chain.from_iterable(ids)))
    space_ids = {
        id_
        for id_, piece in zip(distinct_ids, tokenizer.convert_ids_to_tokens(distinct_ids), strict=True)
        if not piece.strip(_SPACE_MARKS) or piece == _SPACE_BYTE
    }
    return [list(dropwhile(space_ids.__contains__, tokens)) for tokens in ids]


def word_embeddings(
    tokenizer: Any,
    words: Sequence[str],
    embedding: RowSource | Float[np.ndarray, "vocab width"],
) -> Float[Tensor, "words width"]:
    """Return the mean of the sub-token embeddings of each word.

    Args:
        tokenizer: Any Hugging Face tokenizer.
        words: Words to embed; :func:`word_tokens` says how they are tokenized.
        embedding: [vocab, width] input or output embedding of the model: a tensor, an array, or
            :class:`shiftlens.models.families.Embedding`, of which only the rows in use are converted.

    Returns:
        [words, width] mean embeddings on the device of ``embedding``, in float32 (float64 for a float64
        embedding), so that averaging half-precision weights adds no further rounding error. The row of a word
        without sub-tokens is all zero, so the word's activation is 0 everywhere.

    Raises:
        ConfigError: If the tokenizer yields an id for which the embedding has no row.

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
    table: RowSource = torch.from_numpy(embedding) if isinstance(embedding, np.ndarray) else embedding
    tokens_by_word = word_tokens(tokenizer, words)
    largest = max(chain.from_iterable(tokens_by_word), default=-1)
    if largest >= len(table):
        raise ConfigError(
            f"the tokenizer yields id {largest}, but the embedding has {len(table)} rows: "
            "tokenizer and model do not belong together"
        )
    empty = _widened(table, np.empty(0, np.int64))
    means = empty.new_empty(len(words), empty.shape[1])
    # Convert only the rows in use, and in chunks: a whole vocabulary in float32 can take gigabytes.
    for start in range(0, len(words), WORDS):
        chunk = tokens_by_word[start : start + WORDS]
        # Distinct ids, and for each sub-token of the chunk the index of its id among these.
        used, row_of_token = np.unique(
            np.fromiter(chain.from_iterable(chunk), dtype=np.int64), return_inverse=True
        )
        ends = np.cumsum([len(ids) for ids in chunk], dtype=np.int64)
        means[start : start + WORDS] = torch.nn.functional.embedding_bag(
            torch.from_numpy(row_of_token).to(table.device),
            _widened(table, used),
            torch.from_numpy(np.append(0, ends[:-1])).to(table.device),
            mode="mean",
        )
    return means


def _widened(table: RowSource, ids: Int64[np.ndarray, " rows"]) -> Float[Tensor, "rows width"]:
    """Return rows of the table in float32, or in float64 if the table has it: [rows, width]."""
    rows = table[torch.from_numpy(ids).to(table.device)].detach()
    return rows if rows.dtype == torch.float64 else rows.float()
