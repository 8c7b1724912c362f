"""The loss, with the output layer computed only where a token carries loss."""

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
    """Let only some positions through to the output layer.

    Everything after the body acts on each position by itself, whatever the family does there (bias, scaling,
    soft caps), so what it makes of the rest is never missed. The head of a small model with a large vocabulary
    costs a fifth of the whole.

    Args:
        head: the output layer.
        at: int64 [picked] places in the flattened [rows, length].
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
        states = args[0].flatten(0, 1)
        return (states.index_select(0, self._at.to(states.device))[None], *args[1:])


def token_losses(model: nn.Module, batch: Batch) -> Float[Tensor, " targets"]:
    """Cross-entropy in nats of every token that carries loss.

    Args:
        model: causal language model of Hugging Face, or the same under LoRA.
        batch: what to read.

    Returns:
        [targets], at least float32.
    """
    places = {} if batch.positions is None else {"position_ids": batch.positions}
    with PickedPositions(model.get_output_embeddings(), batch.at):  # type: ignore[operator]
        # With a cache the library would not look for the borders of packed dialogues.
        logits = model(input_ids=batch.ids, use_cache=False, **places).logits[0]
    wide = torch.promote_types(logits.dtype, torch.float32)
    return cross_entropy(logits.to(wide), batch.targets.to(logits.device), reduction="none")


@torch.no_grad()
def check_packing(model: nn.Module, vocabulary: int) -> None:
    """Refuse a model that does not keep packed dialogues apart, by trying it.

    A dialogue is read alone, and packed behind two others that differ; its losses must not notice.

    Args:
        model: the model, in evaluation mode.
        vocabulary: number of token ids.

    Raises:
        ConfigError: they do.
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
            "tune.batching=packed: this model lets packed dialogues see each other; use tune.batching=grouped"
        )


def _on(batch: Batch, device: torch.device) -> Batch:
    positions = None if batch.positions is None else batch.positions.to(device)
    return Batch(batch.ids.to(device), positions, batch.at, batch.targets, batch.share, batch.number)
