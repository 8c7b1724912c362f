"""How word files are opened, and how all their faults are told at once."""

from __future__ import annotations

from pathlib import Path

from shiftlens.errors import ConfigError, Problem


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ConfigError: it is not there or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: is not UTF-8; save the file in UTF-8") from error


def raise_problems(path: Path, problems: list[Problem], remedy: str, shown: int = 50) -> None:
    """Raises one error that lists the faults of a file; does nothing where there are none.

    Raises:
        ConfigError: ``problems`` is not empty; the first ``shown`` are spelt out and the rest counted.
    """
    if problems:
        more = [f"  and {len(problems) - shown} more"] if len(problems) > shown else []
        lines = [f"{path}: {len(problems)} problem{'s' if len(problems) != 1 else ''}"]
        raise ConfigError("\n".join([*lines, *(f"  {problem}" for problem in problems[:shown]), *more, remedy]))
