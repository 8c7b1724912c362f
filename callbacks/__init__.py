"""Lightning callbacks: one analysis or one output each."""

from shiftlens.callbacks.concepts import Concepts
from shiftlens.callbacks.faithfulness import Faithfulness
from shiftlens.callbacks.ledger_writer import LedgerWriter
from shiftlens.callbacks.progress import Progress
from shiftlens.callbacks.row_view import RowView
from shiftlens.callbacks.shift import ShiftCurves
from shiftlens.callbacks.token_shift import TokenShift
from shiftlens.callbacks.view import View
from shiftlens.callbacks.word_pairs import WordPairs

__all__ = [
    "Concepts",
    "Faithfulness",
    "LedgerWriter",
    "Progress",
    "RowView",
    "ShiftCurves",
    "TokenShift",
    "View",
    "WordPairs",
]
