"""Writes files whole or not at all, and so that they survive a power cut."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def write_text(path: Path | str, text: str) -> Path:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder) / "a" / "b.txt", "é").read_text(encoding="utf-8")
        'é'
    """
    return write_whole(path, lambda partial: partial.write_bytes(text.encode("utf-8")))


def write_parquet(path: Path | str, frame: pd.DataFrame) -> Path:
    """Write ``frame`` as Parquet to ``path``, whole or not at all.

    Example:
        >>> import pandas as pd
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     len(pd.read_parquet(write_parquet(Path(folder) / "a.parquet", pd.DataFrame({"x": [1]}))))
        1
    """
    return write_whole(path, lambda partial: frame.to_parquet(partial, index=False))


def write_whole(path: Path | str, write: Callable[[Path], object]) -> Path:
    """Have a file written under another name in its folder, synced, and renamed to its own.

    Readers see the old file or the new one, never half of either; folders are made where missing.

    Args:
        path: The file.
        write: Writes a file whose path it is given.

    Returns:
        The file written.

    Raises:
        OSError: The disk is full or the folder cannot be written; the old file, if any, is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        # mkstemp makes files private; the file gets the mode of any other new one.
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        _sync(partial, os.O_RDWR)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync(path.parent, os.O_RDONLY)  # the rename itself must survive a power cut
    return path


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
