"""Defines the errors that a user can act on. Each message says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ShiftLensError(Exception):
    """Base class of the errors that ShiftLens raises on purpose; the command line shows them without traceback."""


class ConfigError(ShiftLensError):
    """Raised for a configuration value that cannot be used."""


class SourceError(ShiftLensError):
    """Raised for a source of models or data that cannot be found, fetched, verified or read."""


@dataclass(frozen=True)
class Problem:
    """One problem of a prompt file.

    Args:
        row: Number of the row in the file, from 1; in text files the number of the line.
        field: Name of the field with the problem; ``""`` if the whole row is concerned.
        message: Description of the problem, to follow the name of the field.
    """

    row: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"row {self.row}" + (f", {self.field}" if self.field else "")
        return f"{where}: {self.message}"


class PromptError(ShiftLensError):
    """Raised once for all problems of a prompt file.

    Args:
        where: File or data set.
        problems: All problems, in file order.

    Example:
        >>> print(PromptError("my.jsonl", [Problem(2, "text", "is missing")]))
        my.jsonl: 1 problem
          row 2, text: is missing
        Correct the rows above, or set data.on_error=skip to leave them out.
    """

    def __init__(self, where: str, problems: Sequence[Problem]) -> None:
        self.where = where
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        lines = [f"{where}: {count}", *(f"  {problem}" for problem in self.problems)]
        lines.append("Correct the rows above, or set data.on_error=skip to leave them out.")
        super().__init__("\n".join(lines))
