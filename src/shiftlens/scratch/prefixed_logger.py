"""Curves of one stage of a run under names of their own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger


class Prefixed(Logger):
    """Hand numbers on to another logger, with a word in front of their names; it alone opens and closes that one.

    Args:
        inner: the logger.
        prefix: the word.
    """

    def __init__(self, inner: Logger, prefix: str) -> None:
        super().__init__()
        self.inner, self.prefix = inner, prefix

    @property
    def name(self) -> str | None:
        """Name of the other logger."""
        return self.inner.name

    @property
    def version(self) -> int | str | None:
        """Version of the other logger."""
        return self.inner.version

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Hand numbers on."""
        self.inner.log_metrics({self.prefix + key: value for key, value in metrics.items()}, step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The other logger has them already."""

    def save(self) -> None:
        """Write out what is buffered."""
        self.inner.save()
