"""TensorBoard: scalars, and verdicts and other words as text."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from shiftlens.report.sink import Entry, LoggerSink


class TensorBoardSink(LoggerSink):
    """Scalars and texts to a TensorBoard logger.

    Args:
        logger: A logger that was made already; ``None`` makes one from ``settings``.
        **settings: Arguments of Lightning's ``TensorBoardLogger``.
    """

    def __init__(self, logger: TensorBoardLogger | None = None, **settings: Any) -> None:
        super().__init__(TensorBoardLogger(**settings) if logger is None else logger)

    def log(self, entry: Entry, step: int | None = None) -> None:
        """Log the scalars and the texts."""
        logger: Any = self.logger
        for name, text in entry.texts.items():
            logger.experiment.add_text(name, text, global_step=step or 0)
        super().log(entry, step)
