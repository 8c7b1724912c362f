"""Reads scores from a Parquet table with one row per response."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Shaped

from shiftlens.analyses.imported.imported_sample import Sample, Source, gathered, make_sample
from shiftlens.errors import Problem, SourceError
from shiftlens.models.identity import file_sha256

_TEXT, _TEXTS, _FLAGS = "text", "a list of text", "a list of true and false"
REQUIRED = {
    "id": _TEXT,
    "dataset": _TEXT,
    "prompt_tokens": _TEXTS,
    "response_tokens": _TEXTS,
    "instruction_mask": _FLAGS,
    "context_mask": _FLAGS,
}
OPTIONAL = {"prompt": _TEXT, "rating": "a number"}
SCORES = {"score": "a list of whole numbers", "importance": "a list of numbers"}


def read_table(path: Path, role: str, levels: int, skip: bool = False) -> Source:
    """Read the responses of one model with their scores.

    Args:
        path: Parquet file with the columns of :data:`REQUIRED`, one of :data:`SCORES` flattened row by row (a row
            is a prompt token), and if known :data:`OPTIONAL`; other columns are ignored.
        role: Role of the model, ``base`` or ``tuned``.
        levels: Value of L with which the column ``score`` was computed.
        skip: Whether rows with faults are left out instead of raising an error.

    Raises:
        SourceError: The file is no Parquet file, or columns are missing or of another type; the message lists all
            of them.
        PromptError: Some rows have faults; the message lists all of them.
    """
    try:
        schema = pq.read_schema(path)
        problems = _columns(schema)
        if problems:
            raise SourceError(f"{path}: {len(problems)} of its columns cannot be used\n  " + "\n  ".join(problems))
        names = [name for name in (*REQUIRED, *OPTIONAL, *SCORES) if name in schema.names]
        rows = pq.read_table(path, columns=names).to_pandas().to_dict("records")
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path} cannot be read as Parquet: {error}") from error
    samples: list[Sample] = []
    faults: list[Problem] = []
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, start=1):
        row_faults = _faults(row)
        if not row_faults:
            key = (row["dataset"], row["id"])
            first = seen.setdefault(key, number)
            if first != number:
                row_faults = [("id", f"{row['id']!r} of {row['dataset']} is already in row {first}")]
        if not row_faults:
            try:
                samples.append(_sample(number, row, role, levels))
            except ValueError as error:
                row_faults = [("", str(error))]
        faults += [Problem(number, field, message) for field, message in row_faults]
    return gathered(role, path, file_sha256(path), samples, faults, skip)


def _columns(schema: pa.Schema) -> list[str]:
    types = dict(zip(schema.names, schema.types, strict=True))
    problems = [f"{name} is missing; expected {kind}" for name, kind in REQUIRED.items() if name not in types]
    given = [name for name in SCORES if name in types]
    if len(given) != 1:
        problems.append(f"expected one of score and importance, found {' and '.join(given) or 'neither'}")
    known = {**REQUIRED, **OPTIONAL, **SCORES}
    problems += [
        f"{name} is {types[name]}; expected {kind}"
        for name, kind in known.items()
        if name in types and not _IS[kind](types[name])
    ]
    return problems


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_list(kind: pa.DataType, of: Any) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and bool(of(kind.value_type))


_IS = {
    _TEXT: _is_text,
    _TEXTS: lambda kind: _is_list(kind, _is_text),
    _FLAGS: lambda kind: _is_list(kind, pa.types.is_boolean),
    "a number": lambda kind: _is_number(kind) or pa.types.is_null(kind),
    "a list of whole numbers": lambda kind: _is_list(kind, pa.types.is_integer),
    "a list of numbers": lambda kind: _is_list(kind, _is_number),
}


def _faults(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return field and message of every fault of a row: missing values, and lengths that do not agree."""
    faults = [
        (name, "is missing or empty")
        for name in ("id", "dataset")
        if not isinstance(row[name], str) or not row[name].strip()
    ]
    given = next(name for name in SCORES if name in row)
    sizes: dict[str, int] = {}
    for name in ("prompt_tokens", "response_tokens", "instruction_mask", "context_mask", given):
        if row[name] is None:
            faults.append((name, "is missing"))
        elif pd.isna(row[name]).any() and name != "importance":
            faults.append((name, f"has an empty entry at {int(np.flatnonzero(pd.isna(row[name]))[0])}"))
        else:
            sizes[name] = len(row[name])
    n, m = (sizes.get(name) for name in ("prompt_tokens", "response_tokens"))
    if n == 0:
        faults.append(("prompt_tokens", "is empty"))
    for name in ("instruction_mask", "context_mask"):
        if n is not None and name in sizes and sizes[name] != n:
            faults.append((name, f"has {sizes[name]} entries for {n} prompt tokens"))
    if n is not None and m is not None and given in sizes and sizes[given] != n * m:
        message = f"has {sizes[given]} entries; expected {n} prompt tokens x {m} response tokens = {n * m}"
        faults.append((given, message))
    rating = row.get("rating")
    if rating is not None and not pd.isna(rating) and rating != int(rating):
        faults.append(("rating", f"expected a whole number, got {rating}"))
    return faults


def _sample(number: int, row: dict[str, Any], role: str, levels: int) -> Sample:
    given = next(name for name in SCORES if name in row)
    tokens: tuple[Sequence[str], Sequence[str]] = (list(row["prompt_tokens"]), list(row["response_tokens"]))
    masks: tuple[Bool[np.ndarray, " _"], ...] = tuple(
        np.asarray(row[name], bool) for name in ("instruction_mask", "context_mask")
    )
    matrix: Shaped[np.ndarray, "_ _"] = np.asarray(row[given]).reshape(len(tokens[0]), len(tokens[1]))
    prompt, rating = row.get("prompt"), row.get("rating")
    return make_sample(
        number, role, (row["dataset"], row["id"]), tokens, (masks[0], masks[1]), matrix,
        levels if given == "score" else None,
        prompt if isinstance(prompt, str) else None,
        None if rating is None or pd.isna(rating) else int(rating),
    )  # fmt: skip
