"""Captures the inputs of several modules of a model in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from shiftlens.hooks.tap import Tap


class StreamTap(Tap):
    """Context manager that stores the inputs of modules, such as the layers of a model and its last norm.

    Args:
        modules: Modules to watch; each must be called with the residual stream as its first positional argument.

    Attributes:
        streams: [batch, total, width] per call, in the order of the calls: the detached input of a module. Inputs
            of several forward passes accumulate.

    Example:
        >>> import torch
        >>> double = nn.Linear(2, 2)
        >>> with StreamTap([double]) as tap:
        ...     _ = double(torch.ones(1, 3, 2))
        >>> tap.streams[0].shape
        torch.Size([1, 3, 2])
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self._modules = modules
        self.streams: list[Float[Tensor, "batch total width"]] = []

    def _hooks(self) -> list[RemovableHandle]:
        return [module.register_forward_pre_hook(self._capture) for module in self._modules]

    def _capture(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.streams.append(args[0].detach())
