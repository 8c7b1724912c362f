"""Where the results of a run go besides its folder: one interface for every logger."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from lightning.pytorch.loggers import Logger


@dataclass(frozen=True)
class Entry:
    """Something to log at one step; what is empty is not logged.

    Args:
        scalars: Numbers by name.
        texts: Words by name, e.g. verdicts.
        tables: Tables by name.
        figures: Makes plotly figures by name; called by destinations that take figures.
        files: Files by name, e.g. the report.
        record: Nested values that describe the run, e.g. its provenance.
    """

    scalars: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Callable[[], Mapping[str, go.Figure]] = dict
    files: Mapping[str, Path] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


class Sink(ABC):
    """A destination of results.

    Derive from it for a destination of your own and name it as ``_target_`` in the ``logger`` group; a Lightning
    ``Logger`` may be named there as well, and then gets the scalars.
    """

    @abstractmethod
    def start(self, config: Mapping[str, Any]) -> None:
        """Open the destination and log the resolved configuration; nothing else is called before.

        Args:
            config: The whole configuration as plain values.
        """

    @abstractmethod
    def log(self, entry: Entry, step: int | None = None) -> None:
        """Log what an entry holds, as far as the destination takes it.

        Args:
            entry: What to log.
            step: Optimizer step; ``None`` for a run without steps.
        """

    @abstractmethod
    def finish(self, exit_code: int = 0) -> list[str]:
        """Close the destination.

        Args:
            exit_code: 0 where the run succeeded.

        Returns:
            Lines that a user should see, such as how to upload an offline run.
        """

    @property
    def trainer_loggers(self) -> Sequence[Logger]:
        """Lightning loggers behind the sink, for a ``Trainer`` to log losses to."""
        return ()


class LoggerSink(Sink):
    """Scalars to any Lightning logger: CSV, and those of other makers.

    Args:
        logger: The logger.
    """

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def start(self, config: Mapping[str, Any]) -> None:
        """Log the configuration as hyperparameters."""
        self.logger.log_hyperparams(dict(config))

    def log(self, entry: Entry, step: int | None = None) -> None:
        """Log the scalars."""
        if entry.scalars:
            self.logger.log_metrics(dict(entry.scalars), step=step)
        self.logger.save()

    def finish(self, exit_code: int = 0) -> list[str]:
        """Finalize the logger."""
        self.logger.finalize("success" if exit_code == 0 else "failed")
        return []

    @property
    def trainer_loggers(self) -> Sequence[Logger]:
        """The logger."""
        return (self.logger,)
