"""Lightning callbacks: one analysis or one output each."""

from shiftlens.callbacks.ledger_writer import LedgerWriter
from shiftlens.callbacks.progress import Progress

__all__ = ["LedgerWriter", "Progress"]
