"""Lightning callbacks: one analysis or one output each."""

from shiftlens.callbacks.ledger_writer import LedgerWriter
from shiftlens.callbacks.progress import Progress
from shiftlens.callbacks.view import View

__all__ = ["LedgerWriter", "Progress", "View"]
