"""Reads prompts from files, the hub, or the embedded data set, as the configuration group ``data`` says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from shiftlens.errors import ConfigError, Problem, PromptError
from shiftlens.prompts import hub, tsv
from shiftlens.prompts.validate import KNOWN, FileRow, PromptSet, collect
from shiftlens.support.conf_files import with_defaults
from shiftlens.support.plugins import added, expected_names, pick
from shiftlens.support.setting_rules import Choice, Number, refuse, setting_problems

__all__ = ["ON_ERROR", "PromptSet", "data_problems", "read_prompts"]

GROUP = "shiftlens.readers"
"""Entry point group of readers that other packages add."""
ON_ERROR = Choice(("raise", "skip"))
"""Rule of ``data.on_error``."""


def read_prompts(data: Mapping[str, Any]) -> PromptSet:
    """Read and check the prompts that the configuration group ``data`` selects.

    Args:
        data: Group as plain values: ``name``, ``reader`` (``verifiable``, ``jsonl``, ``parquet``, ``tsv`` or
            ``hub``, an entry point of the group ``shiftlens.readers``, or a node with ``_target_`` that makes a
            :data:`Reader`), ``limit`` (number of prompts to keep, from the first, after all rows were checked;
            ``None`` keeps all), ``on_error`` (``raise`` or ``skip``), and the reader's own keys, see
            ``conf/data``. A missing key has its value in ``conf/data/shared/prompts.yaml``.

    Returns:
        The prompts, in file order, and the problems of the rows that were left out.

    Raises:
        ConfigError: A value of ``data`` is invalid, or the prompt file cannot be read.
        PromptError: Rows have problems (all are listed), or no prompt is left.
        SourceError: A data set on the hub cannot be loaded.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.jsonl"
        >>> _ = path.write_text('{"text": "Translate to French: a dog", "context": "a dog"}')
        >>> read_prompts({"name": "mine", "reader": "jsonl", "path": path}).prompts[0].instruction
        ((0, 20),)
    """
    data = with_defaults("data/shared", "prompts", data)
    refuse(data_problems(data))
    reader = pick("data.reader", data.get("reader"), READERS, GROUP)
    prompt_set: PromptSet = reader(data, data["on_error"] == "skip")
    return replace(prompt_set, prompts=prompt_set.prompts[: data["limit"]])


def data_problems(data: Mapping[str, Any], group: str = "data") -> list[str]:
    """Return a message for every invalid setting of a group of prompts that does not depend on its files.

    Args:
        data: Group as plain values; a missing key is not checked.
        group: Name of the group in the messages.

    Example:
        >>> data_problems({"reader": "verifiable", "limit": 0}, "held_out")
        ['held_out.limit=0: expected a whole number of at least 1, or null']
    """
    rules = {
        "limit": Number(1, optional=True),
        "on_error": ON_ERROR,
        "max_new_tokens": Number(1),
        "max_tokens": Number(1, optional=True),
        "on_long": Choice(("refuse", "cut")),
    }
    problems = setting_problems(data, rules, f"{group}.")
    reader = data.get("reader")
    if isinstance(reader, str) and reader not in READERS and reader not in added(GROUP):
        problems.append(f"{group}.reader={reader}: {expected_names(READERS, GROUP)}")
    return problems


def _verifiable(data: Mapping[str, Any], skip: bool) -> PromptSet:
    from shiftlens.prompts.verifiable import build

    split = str(with_defaults("data", "verifiable", data)["split"])
    return PromptSet(list(build(split)), (), f"verifiable ({split})")


def _jsonl(data: Mapping[str, Any], skip: bool) -> PromptSet:
    path = _path(data)
    return collect(_json_rows(_text(path)), where=str(path), name=_name(data), skip=skip)


def _parquet(data: Mapping[str, Any], skip: bool) -> PromptSet:
    path = _path(data)
    return collect(_parquet_rows(path), where=str(path), name=_name(data), skip=skip, merge=True)


def _tsv(data: Mapping[str, Any], skip: bool) -> PromptSet:
    path = _path(data)
    rows = tsv.rows(_text(path), str(path))
    return collect(rows, where=str(path), name=_name(data), skip=skip, merge=True)


def _hub(data: Mapping[str, Any], skip: bool) -> PromptSet:
    repo, split, columns = (data.get(key) for key in ("repo", "split", "columns"))
    if not repo or not split or not columns:
        raise ConfigError("data.reader=hub needs data.repo=OWNER/NAME, data.split and data.columns")
    rows = hub.fetch(
        repo, config=data.get("config"), split=split, files=data.get("files"), revision=data.get("revision")
    )
    return collect(hub.map_rows(rows, columns), where=f"{repo} ({split})", name=_name(data), skip=skip)


Reader = Callable[[Mapping[str, Any], bool], PromptSet]
"""The group ``data`` and whether faulty rows are left out -> prompts; all faults at once as a ``PromptError``."""
READERS: dict[str, Reader] = {
    "verifiable": _verifiable,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "tsv": _tsv,
    "hub": _hub,
}
"""Readers by name. Each takes the group ``data`` and whether to skip rows that have problems."""


def _name(data: Mapping[str, Any]) -> str:
    return str(data.get("name") or "prompts")


def _path(data: Mapping[str, Any]) -> Path:
    value = data.get("path")
    if value in (None, "", "???"):  # ??? is an unset mandatory value of the configuration
        raise ConfigError(f"data.reader={data['reader']} needs a prompt file: set data.path=FILE")
    path = Path(str(value)).expanduser()
    if not path.is_file():
        kind = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise ConfigError(f"{path} {kind}: set data.path=FILE to a prompt file")
    return path


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file in UTF-8"
        raise PromptError(str(path), [Problem(line, "", message)]) from error


def _json_rows(text: str) -> Iterator[FileRow]:
    # Not splitlines: a JSON string may contain U+2028 and other line ends unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield FileRow(number, None, (Problem(number, "", f"is not valid JSON: {error}"),))
            continue
        if isinstance(record, dict):
            yield FileRow(number, record)
        else:
            message = f"expected a JSON object, got {type(record).__name__}"
            yield FileRow(number, None, (Problem(number, "", message),))


def _parquet_rows(path: Path) -> Iterable[FileRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_schema(path).names
        if "text" not in columns and "prompt" not in columns:
            raise ConfigError(f"{path} has no column text or prompt; its columns are {', '.join(columns)}")
        records = pq.read_table(path, columns=[name for name in columns if name in KNOWN]).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{path} cannot be read as Parquet: {error}") from error
    return [FileRow(number, _plain(record)) for number, record in enumerate(records, start=1)]


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """Undo how a table stores missing values: make float ratings integers, remove empty keys of checks."""
    rating, check = record.get("rating"), record.get("check")
    if isinstance(rating, float) and (math.isnan(rating) or rating.is_integer()):
        record["rating"] = None if math.isnan(rating) else int(rating)
    if isinstance(check, dict):
        record["check"] = {key: value for key, value in check.items() if value is not None}
    return record
