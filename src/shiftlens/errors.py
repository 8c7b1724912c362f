"""Errors a user can act on: each says what is wrong, where, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ShiftLensError(Exception):
    """Base of every error ShiftLens raises on purpose; shown without a traceback on the command line."""


class ConfigError(ShiftLensError):
    """A configuration value that cannot be used."""


class SourceError(ShiftLensError):
    """A model source that cannot be found, fetched, checked or read."""


@dataclass(frozen=True)
class Problem:
    """One fault of a prompt file.

    Args:
        row: number of the row in the file, 1 for the first record (line number for text files).
        field: name of the field at fault, ``""`` for the row as a whole.
        message: what was expected and what came.
    """

    row: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"row {self.row}" + (f", {self.field}" if self.field else "")
        return f"{where}: {self.message}"


class PromptError(ShiftLensError):
    """All faults of a prompt file, collected and raised once.

    Args:
        where: the file or data set.
        problems: every fault found, in file order.

    Example:
        >>> print(PromptError("my.jsonl", [Problem(2, "text", "is missing")]))
        my.jsonl: 1 problem
          row 2, text: is missing
        Mend the rows above, or set data.on_error=skip to leave them out.
    """

    def __init__(self, where: str, problems: Sequence[Problem]) -> None:
        self.where = where
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        lines = [f"{where}: {count}", *(f"  {problem}" for problem in self.problems)]
        lines.append("Mend the rows above, or set data.on_error=skip to leave them out.")
        super().__init__("\n".join(lines))
