"""Computes the training loss, applying the output layer only at positions whose next token carries loss."""

from __future__ import annotations

from types import TracebackType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.hooks import RemovableHandle

from shiftlens.errors import ConfigError
from shiftlens.tuning.batches import Batch, packed
from shiftlens.tuning.examples import Example


class PickedPositions:
    """Context manager that passes only selected positions to the output layer.

    After the last transformer layer, every operation acts on each position separately, in all families (bias,
    scaling, soft caps), so dropping the other positions does not change the selected ones. In a small model with a
    large vocabulary, the output layer takes a fifth of the time of the model.

    Args:
        head: Output layer.
        at: int64 [picked] Indices in the flattened [rows, length] of the positions to keep.
    """

    def __init__(self, head: nn.Module, at: Tensor) -> None:
        self._head, self._at = head, at
        self._handle: RemovableHandle | None = None

    def __enter__(self) -> PickedPositions:
        self._handle = self._head.register_forward_pre_hook(self._pick)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.remove()

    def _pick(self, layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states = args[0].flatten(0, 1)  # [rows, length, width] -> [rows * length, width]
        return (states.index_select(0, self._at.to(states.device))[None], *args[1:])  # [1, picked, width]


def token_losses(model: nn.Module, batch: Batch) -> Float[Tensor, " targets"]:
    """Return the cross-entropy, in nats, of every token that carries loss.

    Args:
        model: Hugging Face causal language model, with or without LoRA.
        batch: Batch of dialogues.

    Returns:
        [targets] Losses, in float32 or wider.
    """
    position_ids = {} if batch.positions is None else {"position_ids": batch.positions}
    with PickedPositions(model.get_output_embeddings(), batch.at):  # type: ignore[operator]
        # With a cache, transformers does not detect the boundaries of packed dialogues.
        logits = model(input_ids=batch.ids, use_cache=False, **position_ids).logits[0]  # [targets, vocabulary]
    loss_dtype = torch.promote_types(logits.dtype, torch.float32)
    return cross_entropy(logits.to(loss_dtype), batch.targets.to(logits.device), reduction="none")


@torch.no_grad()
def check_packing(model: nn.Module, vocabulary: int) -> None:
    """Check by experiment that packed dialogues do not affect each other in a model.

    The losses of a random dialogue are computed alone and packed behind each of two other dialogues; they must
    not change.

    Args:
        model: Model in evaluation mode.
        vocabulary: Number of token ids.

    Raises:
        ConfigError: The losses change by more than rounding.
    """
    draw = torch.Generator().manual_seed(0)
    one, other, last = (
        Example(tuple(torch.randint(vocabulary, (8,), generator=draw).tolist()), 0) for _ in range(3)
    )
    device = next(model.parameters()).device
    alone, behind, behind_other = (
        token_losses(model, _on(packed(some), device))[-last.targets :].float()
        for some in ([last], [one, last], [other, last])
    )
    rounding = 64 * torch.finfo(next(model.parameters()).dtype).eps * alone.abs().max()
    if (behind - behind_other).abs().max() > rounding or (behind - alone).abs().max() > rounding:
        raise ConfigError(
            "tune.batching=packed: in this model, packed dialogues attend to each other; use tune.batching=grouped"
        )


def _on(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its inputs on a device."""
    positions = None if batch.positions is None else batch.positions.to(device)
    return Batch(batch.ids.to(device), positions, batch.at, batch.targets, batch.share, batch.number)
