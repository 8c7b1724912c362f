"""Embeddings of whole words, made from the embeddings of their sub-tokens."""

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
"""Words whose rows are widened at a time: with a few sub-tokens each, some ten thousand rows at most."""


@runtime_checkable
class Rows(Protocol):
    """A table of embeddings that makes rows when asked for them, as a tensor does."""

    @property
    def device(self) -> torch.device:
        """Where rows are made."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Int64[Tensor, " rows"], /) -> Float[Tensor, "rows width"]: ...


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
    embedding: Rows | Float[np.ndarray, "vocab width"],
) -> Float[Tensor, "words width"]:
    """The mean of each word's sub-token embeddings.

    Args:
        tokenizer: any Hugging Face tokenizer.
        words: the words, see :func:`word_tokens` for how they are tokenized.
        embedding: [vocab, width] input or output embedding of the model: a tensor, an array, or
            :class:`shiftlens.models.families.Embedding`, of which no more than the rows in use are widened.

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
    table: Rows = torch.from_numpy(embedding) if isinstance(embedding, np.ndarray) else embedding
    pieces = word_tokens(tokenizer, words)
    largest = max(chain.from_iterable(pieces), default=-1)
    if largest >= len(table):
        raise ConfigError(
            f"the tokenizer yields id {largest}, but the embedding has {len(table)} rows: not of one model"
        )
    empty = _widened(table, np.empty(0, np.int64))
    means = empty.new_empty(len(words), empty.shape[1])
    # Only the rows in use are widened, and not all at once: a whole vocabulary in float32 can be gigabytes.
    for start in range(0, len(words), WORDS):
        part = pieces[start : start + WORDS]
        used, place = np.unique(np.fromiter(chain.from_iterable(part), dtype=np.int64), return_inverse=True)
        ends = np.cumsum([len(ids) for ids in part], dtype=np.int64)
        means[start : start + WORDS] = torch.nn.functional.embedding_bag(
            torch.from_numpy(place).to(table.device),
            _widened(table, used),
            torch.from_numpy(np.append(0, ends[:-1])).to(table.device),
            mode="mean",
        )
    return means


def _widened(table: Rows, ids: Int64[np.ndarray, " rows"]) -> Float[Tensor, "rows width"]:
    rows = table[torch.from_numpy(ids).to(table.device)].detach()
    return rows if rows.dtype == torch.float64 else rows.float()
