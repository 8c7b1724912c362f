"""Captures the input of the output layer, the boundary between body and head of a language model."""

from __future__ import annotations

from types import TracebackType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from shiftlens.hooks.tap import Tap


class HeadTap(Tap):
    """Context manager that cuts the graph before the output layer.

    After the cut, each position is computed by itself in every family (bias, scaling, soft caps). So one backward
    pass through the head gives the gradients for all response tokens, and only the body needs one pass per token.
    The linear head of a model in half precision is computed in float32, because its rows share a large component
    that cancels in a gradient. Gradients are enabled from the cut on, until the context ends.

    Args:
        model: Hugging Face causal language model.

    Attributes:
        body: [batch, kept, width] hidden states from the body, in its graph; kept is the number of positions that
            reach the output layer.
        leaf: [batch, kept, width] the same values as a leaf, from which the logits are computed; in at least
            float32 if the head is linear.
    """

    body: Float[Tensor, "batch kept width"] | None = None
    leaf: Float[Tensor, "batch kept width"] | None = None

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self._layer: nn.Module = model.get_output_embeddings()
        self._grad_was_enabled = False

    def _hooks(self) -> list[RemovableHandle]:
        self._grad_was_enabled = torch.is_grad_enabled()
        handles = [self._layer.register_forward_pre_hook(self._capture)]
        if type(self._layer) is nn.Linear:
            # First of all hooks, because others may change the logits.
            handles.append(self._layer.register_forward_hook(self._widen, prepend=True))
        return handles

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, at)
        torch.set_grad_enabled(self._grad_was_enabled)

    def _capture(self, layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        torch.set_grad_enabled(True)
        self.body = args[0]
        self.leaf = args[0].detach().requires_grad_()
        return (self.leaf, *args[1:])

    def _widen(self, layer: nn.Linear, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        wide = torch.promote_types(output.dtype, torch.float32)
        if wide == output.dtype:
            return output
        # In a model split over devices, a tied output layer may be on another device than the last layer.
        self.leaf = args[0].detach().to(layer.weight.device, wide).requires_grad_()
        bias = None if layer.bias is None else layer.bias.to(wide)
        return nn.functional.linear(self.leaf, layer.weight.to(wide), bias)
