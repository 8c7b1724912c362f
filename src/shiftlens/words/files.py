"""Reads word files, and reports all faults of a file in one error."""

from __future__ import annotations

from pathlib import Path

from shiftlens.errors import ConfigError, Problem


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file; a byte order mark is removed.

    Args:
        path: File to read.

    Raises:
        ConfigError: If the file cannot be opened or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: is not UTF-8; save the file in UTF-8") from error


def raise_problems(path: Path, problems: list[Problem], remedy: str, shown: int = 50) -> None:
    """Raise one error that lists the faults of a file; do nothing if there are none.

    Args:
        path: File that has the faults.
        problems: Faults of the file.
        remedy: Last line of the message: the expected format, or what to do.
        shown: Number of faults to list; the message only counts the rest.

    Raises:
        ConfigError: If ``problems`` is not empty.
    """
    if problems:
        more = [f"  and {len(problems) - shown} more"] if len(problems) > shown else []
        lines = [f"{path}: {len(problems)} problem{'s' if len(problems) != 1 else ''}"]
        raise ConfigError("\n".join([*lines, *(f"  {problem}" for problem in problems[:shown]), *more, remedy]))
