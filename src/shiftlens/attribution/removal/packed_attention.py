"""Lets a model run several suffixes of one text as a single sequence of rows, without padding.

Everything outside attention acts row by row and needs the rows' positions only. Attention gives each suffix the
keys and values of the text before it, which are kept from the text's own pass, and its own. In shape comments a
group is a key-value head, longest is the number of rows of the longest suffix, and keys is the last position of
any row plus 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from shiftlens.attribution.modes.plain_attention import attend_plainly, attention_replaced
from shiftlens.attribution.removal.suffixes import Suffix
from shiftlens.support.libraries.transformers_parts import register_attention

_NAME = "shiftlens_packed"
Kept = list[tuple[Tensor, Tensor]]
"""For each layer, keys and values of the whole text, [groups, length, head]."""


class Pack:
    """Where the rows of several suffixes stand.

    Args:
        suffixes: The suffixes, one after the other.
        kept: Keys and values of the text itself; ``None`` for a single suffix that starts with the text.
        device: Device of the first layer.

    Attributes:
        position: [1, rows] position of each row.
        layers: Keys and values of the layers that have run, if there is nothing kept to complete them.
    """

    def __init__(self, suffixes: Sequence[Suffix], kept: Kept | None, device: torch.device) -> None:
        lengths = np.array([len(suffix.tokens) for suffix in suffixes])
        offsets = lengths.cumsum() - lengths  # first row of each suffix
        within = np.arange(lengths.sum()) - offsets.repeat(lengths)
        suffix, longest = np.arange(len(suffixes)).repeat(lengths), int(lengths.max())
        position = within + np.array([each.start for each in suffixes]).repeat(lengths)
        grid = np.zeros((2, len(suffixes), longest), np.int64)  # of rows and of positions; the rest repeats row 0
        grid[:, suffix, within] = np.arange(len(position)), position
        self.keys = int(position.max()) + 1

        def there(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        self.position = there(position)[None]
        self._grid, self._grid_position = there(grid)  # [suffixes, longest] each
        self._in_grid = there(suffix * longest + within)  # [rows]
        self._in_keys = there(suffix * self.keys + position)  # [rows]
        self._kept, self.layers = kept, Kept()

    def mask(self, allowed: Callable[..., Tensor], dtype: torch.dtype) -> Tensor:
        """Return what is added to the logits of attention, [suffixes, 1, longest, keys], by a model's own rule.

        Args:
            allowed: The model's rule: a function of the indices of text, head, query and key.
            dtype: Data type of the mask.
        """
        query = self._grid_position[:, None, :, None]
        key = torch.arange(self.keys, device=query.device)
        zero = torch.zeros_like(query)
        visible = allowed(zero, zero, query, key)
        return torch.zeros(visible.shape, dtype=dtype, device=query.device).masked_fill_(~visible, -torch.inf)

    def by_suffix(self, query: Tensor) -> Tensor:
        """Divide queries, [1, heads, rows, head], by suffix: [suffixes, heads, longest, head]."""
        return query[0][:, self._grid.to(query.device)].transpose(0, 1)

    def by_row(self, out: Tensor) -> Tensor:
        """Undo :meth:`by_suffix` for outputs, [suffixes, heads, longest, head]: [1, rows, heads, head]."""
        return out.transpose(1, 2).flatten(0, 1)[None, self._in_grid.to(out.device)]

    def complete(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of each suffix and of the text before it, [suffixes, groups, keys, head] each.

        Args:
            key: [1, groups, rows, head] keys of a layer; layers come in the order in which the model runs them.
            value: [1, groups, rows, head] values.
        """
        if self._kept is None:
            self.layers.append((key[0], value[0]))
            return key, value
        kept = self._kept[len(self.layers)]
        self.layers.append(kept)
        return self._completed(key, kept[0]), self._completed(value, kept[1])

    def _completed(self, own: Tensor, kept: Tensor) -> Tensor:
        # [suffixes, keys, groups, head]: positions first, so that each row is copied in one piece
        whole = kept[:, : self.keys].transpose(0, 1).repeat(len(self._grid), 1, 1, 1)
        whole.flatten(0, 1)[self._in_keys.to(own.device)] = own[0].transpose(0, 1)
        return whole.transpose(1, 2)


_PACK: ContextVar[Pack] = ContextVar("pack")


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute attention of a pack, in the calling convention of transformers; softmax in float32 or wider."""
    pack = _PACK.get()
    if attention_mask is None:
        raise NotImplementedError("attention without a mask cannot be packed")
    query = pack.by_suffix(query)
    key, value = pack.complete(key, value)
    if softcap is None and s_aux is None:
        out = scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
        )
    else:
        out, _ = attend_plainly(module, query, key, value, attention_mask, scaling, softcap, s_aux)
        out = out.transpose(1, 2)
    return pack.by_row(out), None


def _mask(
    *, mask_function: Callable[..., Tensor], use_vmap: bool = False, dtype: torch.dtype = torch.float32, **_: Any
) -> Tensor:
    """Make the mask of a pack, in the calling convention of transformers."""
    if use_vmap:
        raise NotImplementedError("a mask whose rule takes no tensors cannot be packed")
    return _PACK.get().mask(mask_function, dtype)


register_attention(_NAME, _attend, _mask)


@contextmanager
def packed(model: PreTrainedModel, pack: Pack) -> Iterator[None]:
    """Have a model take its input for a pack; restore its attention on leaving, even after an error.

    Args:
        model: Hugging Face model.
        pack: Where the rows of the input stand.
    """
    token = _PACK.set(pack)
    try:
        with attention_replaced(model, _NAME):
            yield
    finally:
        _PACK.reset(token)


def rows_of(suffixes: Sequence[Suffix]) -> Int[np.ndarray, " affected"]:
    """Return the rows of a pack that predict response tokens, suffix after suffix.

    Args:
        suffixes: The suffixes of the pack.
    """
    offsets = np.cumsum([0, *(len(suffix.tokens) for suffix in suffixes)])
    return np.concatenate([suffix.rows + at for suffix, at in zip(suffixes, offsets, strict=False)])
