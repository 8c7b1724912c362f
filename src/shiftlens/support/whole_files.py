"""Writes files whole or not at all, and so that they survive a power cut."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def write_text(path: Path | str, text: str) -> Path:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder) / "a" / "b.txt", "é").read_text(encoding="utf-8")
        'é'
    """
    return write_whole(path, lambda partial: partial.write_bytes(text.encode("utf-8")))


def write_parquet(path: Path | str, frame: pd.DataFrame) -> Path:
    """Write ``frame`` as Parquet to ``path``, whole or not at all.

    Example:
        >>> import pandas as pd
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     len(pd.read_parquet(write_parquet(Path(folder) / "a.parquet", pd.DataFrame({"x": [1]}))))
        1
    """
    return write_whole(path, lambda partial: frame.to_parquet(partial, index=False))


def write_whole(path: Path | str, write: Callable[[Path], object]) -> Path:
    """Write a file under another name in its folder, sync it to disk, and rename it to its own name.

    Readers see the old file or the new one, never half of either; missing folders are made. A device or a pipe,
    such as ``/dev/stdout``, is written directly.

    Args:
        path: The file.
        write: Function that writes the content to the path it is given.

    Returns:
        The file written.

    Raises:
        OSError: The disk is full or the folder cannot be written; the old file, if any, is untouched.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a rename would put a file in the place of the device
        write(path)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        partial.touch(exist_ok=False)  # not mkstemp, whose files only their owner may read
        write(partial)
        _sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync(path.parent)  # the rename itself must survive a power cut
    return path


def move_folder(folder: Path, target: Path) -> Path:
    """Rename a finished folder to its place, after all of its files are on disk.

    Args:
        folder: The folder, on the same file system as ``target``.
        target: Its place; nothing may be there yet.

    Returns:
        ``target``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as where:
        ...     _ = write_text(Path(where) / "work" / "a.txt", "a")
        ...     (move_folder(Path(where) / "work", Path(where) / "done") / "a.txt").read_text()
        'a'
    """
    for path in (folder, *folder.rglob("*")):
        _sync(path)
    folder.replace(target)
    _sync(target.parent)
    return target


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
