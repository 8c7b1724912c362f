"""Private parts of torch: where a module keeps its hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def forward_hooks(module: nn.Module) -> list[Callable[..., Any]]:
    """Hooks that run when a module is called, before and after its own computation.

    Args:
        module: The module; hooks of its submodules are not included.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> _ = layer.register_forward_hook(print)
        >>> forward_hooks(layer)
        [<built-in function print>]
    """
    return [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]


def hook_tables(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """The tables of hooks that a deep copy of a module would copy too.

    Args:
        module: The module.
    """
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks
