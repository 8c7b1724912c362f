"""Writes each explained sample to the ledger during the run."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from shiftlens.attribution.ledger import Ledger
from shiftlens.attribution.row import Row


class LedgerWriter(Callback):
    """Collects rows and writes them to the ledger at short intervals, at the end of the run, and after an error.

    Args:
        ledger: Ledger to which the rows are written.
        flush_seconds: Longest time in seconds between two writes, so that a killed run loses only seconds of
            work. With 0, every batch is written at once.
    """

    def __init__(self, ledger: Ledger, flush_seconds: float = 5.0) -> None:
        self.ledger = ledger
        self.flush_seconds = flush_seconds
        self._rows: list[Row] = []
        self._flushed = time.monotonic()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the batch's rows, and write all collected rows if ``flush_seconds`` have passed."""
        self._rows += outputs
        if time.monotonic() - self._flushed >= self.flush_seconds:
            self._flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the remaining rows."""
        self._flush()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the rows that were computed before an error or Ctrl-C."""
        self._flush()

    def _flush(self) -> None:
        self.ledger.append(self._rows)
        self._rows = []
        self._flushed = time.monotonic()
