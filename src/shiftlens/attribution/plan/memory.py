"""Estimates how many derivatives fit in a memory budget (the chunk), and halves the chunk if memory runs out."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import psutil
import torch
from jaxtyping import Int
from transformers import PreTrainedConfig, PreTrainedModel

from shiftlens.attribution.llama.packing import COUNT, ROWS
from shiftlens.attribution.plan.row_counts import crossing_rows
from shiftlens.errors import ShiftLensError

log = logging.getLogger(__name__)
T = TypeVar("T")

MOST = {"cpu": 16, "cuda": 64}
"""Maximum number of derivatives in a chunk, per device type; larger chunks are not faster."""
MOST_WRITTEN_OUT = 1024
"""The same for hand-written derivatives: each chunk is divided into packs and recomputes primal values once."""
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_MOST_BYTES = 2**63


def parse_budget(value: object) -> float | int:
    """Parse a memory budget: a share of the free memory, or a size.

    Args:
        value: Share up to 1 such as ``0.5``, size such as ``8GB`` or ``500MB``, or number of bytes.

    Returns:
        Share in (0, 1] as float, or bytes as int.

    Raises:
        ValueError: The value is neither a share nor a size that a machine could have.

    Example:
        >>> parse_budget(0.5), parse_budget("1.5GB")
        (0.5, 1500000000)
    """
    size: float | int = 0
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if 0 < value <= 1:
            return float(value)
        size = value
    elif match := re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([KMGT]B)\s*", str(value), re.IGNORECASE):
        size = float(match[1]) * _UNITS[match[2].upper()]
    if 1 <= size < _MOST_BYTES:  # false for NaN, and infinity is above it
        return int(size)
    raise ValueError(f"{value!r}: expected a share of free memory such as 0.5, or a size such as 8GB")


def free_bytes(device: torch.device) -> int:
    """Return the bytes that are free on a device now; for a CPU, those available without swapping."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    # The processes of a parallel run on one machine share its memory.
    return int(psutil.virtual_memory().available) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Need:
    """Bytes that an engine holds in addition to the model's weights.

    Args:
        fixed: Bytes that do not depend on the chunk.
        each: Bytes per derivative of the chunk.
    """

    fixed: int
    each: int

    def chunk(self, budget: int, most: int) -> int:
        """Return the largest chunk within a budget in bytes, at least 1 and at most ``most``."""
        return max(1, min(most, (budget - self.fixed) // max(self.each, 1)))


def need(config: PreTrainedConfig, itemsize: int, mode: str, total: int, response: int, written_out: bool) -> Need:
    """Estimate the memory that an engine needs for one text, from the shapes alone.

    Generic reverse mode keeps the graph of all layers; with hand-written derivatives, reverse mode keeps only the
    inputs of all layers; forward mode keeps neither. Mixed mode needs additional memory that depends on the cut,
    see :func:`kept`. Each derivative of a chunk holds the values of one layer; with hand-written derivatives, only
    those of one pack do. The numbers of live arrays are counted in the code and checked against measured peaks in
    ``docs/performance.md``.

    Args:
        config: Text configuration of the model.
        itemsize: Bytes of one number of the model's dtype.
        mode: ``forward``, ``reverse`` or ``mixed``; or ``removal``, with a suffix of the text in the place of a
            derivative.
        total: Number of ids.
        response: Number of response tokens.
        written_out: Whether the derivatives are hand-written, see :mod:`shiftlens.attribution.llama.layer`.

    Example:
        >>> from transformers import LlamaConfig
        >>> seven_b = LlamaConfig(num_hidden_layers=32, hidden_size=4096, intermediate_size=11008)
        >>> estimate = need(seven_b, 2, "forward", 1024, 512, written_out=False)
        >>> estimate.fixed + 8 * estimate.each < 8e9
        True
    """
    wide = max(itemsize, 4)
    # Hand-written derivatives and the values they need are in at least float32.
    layers, width, stream, hidden, maps = _sizes(config, wide if written_out else itemsize, total)
    # Per response token, logits, their exponentials and their gradient, as wide as the vocabulary.
    head = 6 * config.vocab_size * wide
    # In half precision the output layer is computed in float32, from a copy of its weight.
    widened = config.vocab_size * width * wide if itemsize < wide else 0
    layer_maps = 2 * maps * (itemsize + wide)
    if mode == "reverse" and not written_out:
        return Need(_graph(config, itemsize, total) + widened, 8 * stream + 4 * hidden + layer_maps + head)
    cache = 2 * layers * stream + head * response + widened
    if mode == "removal":  # the logits of a suffix, and a block of them in the readout
        return Need(cache, 10 * stream + 5 * hidden + layer_maps + 2 * config.vocab_size * wide * response)
    if written_out:  # packs pass through a layer one after the other
        entered = 2 * layers * stream if mode != "forward" else 0
        # Cotangents of mixed mode have few rows each, but all keys of the text.
        pack = COUNT if mode == "mixed" else min(COUNT, max(1.0, ROWS / total))
        return Need(int(cache + entered + pack * (8 * stream + 3 * hidden) + 2 * maps * wide), 2 * stream)
    moved = total * crossing_bytes(config, itemsize) if mode == "mixed" else 0
    return Need(cache, 10 * stream + 5 * hidden + layer_maps + moved)


def kept(
    config: PreTrainedConfig, itemsize: int, sources: Sequence[int], total: int, written_out: bool, together: int
) -> Int[np.ndarray, " total"]:
    """Return, for every possible cut, the bytes mixed mode holds in addition to :func:`need`, for any chunk.

    These are the tangents of keys and values before the cut, and, for generic derivatives, the graph of all layers
    from the cut on.

    Args:
        config: Text configuration of the model.
        itemsize: Bytes of one number of the model's dtype.
        sources: Positions to attribute to.
        total: Number of ids.
        written_out: Whether the derivatives are hand-written.
        together: Maximum number of tangents in a pack.

    Returns:
        Bytes for cuts from 0 to total - 1, [total].

    Example:
        >>> from transformers import LlamaConfig
        >>> kept(LlamaConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=2), 4, [1], 4, True, 16)
        array([  0,   0,  64, 128])
    """
    held = max(itemsize, 4) if written_out else itemsize
    crossing = crossing_rows(sources, total, together) * crossing_bytes(config, held)
    if written_out:
        return crossing
    return crossing + _graph(config, itemsize, total) * np.arange(total - 1, -1, -1) // total


def _sizes(config: PreTrainedConfig, itemsize: int, total: int) -> tuple[int, int, int, int, int]:
    """Return layers and width; per layer, bytes of the stream and inside the MLP, number of attention weights."""
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or getattr(config, "ffn_dim", None) or 4 * width
    widest = max(inner) if isinstance(inner, Sequence) else inner
    maps = config.num_attention_heads * total * total
    return config.num_hidden_layers, width, total * width * itemsize, total * widest * itemsize, maps


def _graph(config: PreTrainedConfig, itemsize: int, total: int) -> int:
    """Return the bytes of the graph of all layers."""
    layers, _, stream, hidden, maps = _sizes(config, itemsize, total)
    return layers * (12 * stream + 4 * hidden + maps * (itemsize + max(itemsize, 4)))


def crossing_bytes(config: PreTrainedConfig, itemsize: int) -> int:
    """Return the bytes of one tangent of one position's keys and values, in all layers.

    Args:
        config: Text configuration of the model.
        itemsize: Bytes of one number of the model's dtype.

    Example:
        >>> from transformers import LlamaConfig
        >>> crossing_bytes(LlamaConfig(num_hidden_layers=32, hidden_size=4096, num_attention_heads=32), 2)
        524288
    """
    heads: int = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * groups * head * itemsize)


def halving(run: Callable[[int], T], chunk: int) -> T:
    """Call a function with a chunk, and with half of the chunk each time memory runs out.

    Args:
        run: Function of the chunk, whose result does not depend on the chunk.
        chunk: Chunk of the first call.

    Returns:
        The result of ``run``.

    Raises:
        ShiftLensError: Memory runs out even with a chunk of 1.

    Example:
        >>> def run(chunk):
        ...     if chunk > 2:
        ...         raise torch.OutOfMemoryError("no")
        ...     return chunk
        >>> halving(run, 9)
        2
    """
    while True:
        try:
            return run(chunk)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if chunk == 1:
                raise ShiftLensError(
                    "memory ran out with a single derivative; shorten the texts (data.max_tokens, "
                    "data.max_new_tokens), or use another saliency.mode: forward keeps no graph"
                ) from error
        chunk //= 2
        log.warning("memory ran out; going on with saliency.chunk=%d", chunk)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def budget_bytes(budget: float | int, model: PreTrainedModel) -> int:
    """Convert a budget from :func:`parse_budget` to bytes on a model's device."""
    return int(budget * free_bytes(model.device)) if isinstance(budget, float) else budget


_SAYS_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out; some allocators raise a plain RuntimeError for this."""
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or any(words in str(error) for words in _SAYS_MEMORY)
