"""Lightning callbacks; each one runs one analysis or writes one kind of output."""

from shiftlens.callbacks.base import RowView, TrainingLook, View
from shiftlens.callbacks.concepts import Concepts
from shiftlens.callbacks.explain_bar import Progress
from shiftlens.callbacks.faithfulness import Faithfulness
from shiftlens.callbacks.ledger_writer import LedgerWriter
from shiftlens.callbacks.parting import Parting
from shiftlens.callbacks.running_score import RunningScore
from shiftlens.callbacks.token_shift import TokenShift
from shiftlens.callbacks.training import ShiftCurves
from shiftlens.callbacks.word_pairs import WordPairs

__all__ = [
    "Concepts",
    "Faithfulness",
    "LedgerWriter",
    "Parting",
    "Progress",
    "RowView",
    "RunningScore",
    "ShiftCurves",
    "TokenShift",
    "TrainingLook",
    "View",
    "WordPairs",
]
