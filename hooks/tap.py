"""Base of the hooks: registers handles on entering a ``with`` block and removes all of them on leaving it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

from torch.utils.hooks import RemovableHandle

T = TypeVar("T", bound="Tap")  # not typing.Self, which the check of shapes refuses here


class Tap(ABC):
    """Context manager that hooks into a model for the length of a ``with`` block."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    @abstractmethod
    def _hooks(self) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""

    def __enter__(self: T) -> T:
        self._handles = self._hooks()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
