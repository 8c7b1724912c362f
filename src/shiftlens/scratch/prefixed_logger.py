"""Defines a logger that puts a prefix before the names of metrics, to separate the stages of a run."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger


class Prefixed(Logger):
    """Passes metrics on to another logger, with a prefix before their names.

    This class neither opens nor closes the other logger, so that later stages of the run can still use it.

    Args:
        inner: Logger that receives the metrics.
        prefix: Text before each name, such as ``pretrain/``.
    """

    def __init__(self, inner: Logger, prefix: str) -> None:
        super().__init__()
        self.inner, self.prefix = inner, prefix

    @property
    def name(self) -> str | None:
        """Name of the inner logger."""
        return self.inner.name

    @property
    def version(self) -> int | str | None:
        """Version of the inner logger."""
        return self.inner.version

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics under prefixed names."""
        self.inner.log_metrics({self.prefix + key: value for key, value in metrics.items()}, step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the inner logger already has the hyperparameters of the run."""

    def save(self) -> None:
        """Make the inner logger write buffered metrics."""
        self.inner.save()
