"""Prompts of public data sets on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from shiftlens.errors import ConfigError, Problem, SourceError
from shiftlens.prompts.validate import Row


def self_instruct(row: Mapping[str, Any]) -> dict[str, Any]:
    r"""Self-Instruct's 252 user-oriented tasks, worded as the paper feeds them.

    A task with an input becomes ``<instruction>\n\nInput: <input>\n\nOutput:``; the input is the context,
    the task and the word ``Input:`` are the instruction. The paper's annotators went by the meaning
    instead (often a part of the input is instruction too): its exact spans are in its published files
    only, see :mod:`shiftlens.prompts.tsv`.

    Example:
        >>> record = self_instruct({"id": "a", "instruction": "Shout.", "instances": [{"input": "hi"}]})
        >>> record["text"], record["instruction"], record["context"]
        ('Shout.\n\nInput: hi\n\nOutput:', [(0, 6), (8, 14)], [(15, 17)])
    """
    instances = row["instances"]
    if isinstance(instances, Mapping):  # how `datasets` used to return a list of objects
        instances = [{key: values[0] for key, values in instances.items()}]
    task, given = row["instruction"], instances[0].get("input") or ""
    record: dict[str, Any] = {"id": row["id"], "text": task, "reference": instances[0].get("output")}
    if given:
        head = f"{task}\n\nInput: "
        record["text"] = f"{head}{given}\n\nOutput:"
        record["instruction"] = [(0, len(task)), (len(task) + 2, len(head) - 1)]
        record["context"] = [(len(head), len(head) + len(given))]
    return record


def lima(row: Mapping[str, Any]) -> dict[str, Any]:
    """LIMA: the first turn of a conversation; the second, if there is one, is the reference."""
    turns = row["conversations"]
    return {"text": turns[0], "reference": turns[1] if len(turns) > 1 else None}


def mt_bench(row: Mapping[str, Any]) -> dict[str, Any]:
    """MT-Bench: the first of two turns, with its reference answer where one was published."""
    reference = row.get("reference") or [None]
    return {"id": str(row["prompt_id"]), "text": row["prompt"][0], "reference": reference[0]}


def ifeval(row: Mapping[str, Any]) -> dict[str, Any]:
    """IFEval: the prompt alone; its own checks are not translated."""
    return {"id": str(row["key"]), "text": row["prompt"]}


COLUMNS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "self_instruct": self_instruct,
    "lima": lima,
    "mt_bench": mt_bench,
    "ifeval": ifeval,
}


def map_rows(data: Iterable[Mapping[str, Any]], columns: str) -> Iterator[Row]:
    """Turns the rows of a data set into records.

    Args:
        data: rows as ``datasets`` gives them.
        columns: name of the mapping, a key of :data:`COLUMNS`.

    Raises:
        ConfigError: there is no such mapping.

    Example:
        >>> next(map_rows([{"key": 7, "prompt": "Sing."}], "ifeval")).record
        {'id': '7', 'text': 'Sing.'}
    """
    if columns not in COLUMNS:
        raise ConfigError(f"data.columns={columns!r} is not known; choose one of {', '.join(COLUMNS)}")
    for number, row in enumerate(data, start=1):
        try:
            yield Row(number, COLUMNS[columns](row))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            message = f"is not laid out as {columns!r} expects ({type(error).__name__}: {error})"
            yield Row(number, None, (Problem(number, "", f"{message}; it has {sorted(row)}"),))


def fetch(
    repo: str, *, config: str | None, split: str, files: str | None, revision: str | None
) -> Iterable[Mapping[str, Any]]:
    """Loads one split from the hub, or from the local cache of an earlier run. Runs no code of the data set.

    Args:
        repo: ``owner/name``.
        config: named part of the data set, if it has any.
        split: the split.
        files: a JSON Lines file inside the repository, to read instead of what the repository declares
            (for data sets that come with a loading script, which current ``datasets`` refuses).
        revision: branch, tag or commit; the main branch if ``None``.

    Raises:
        ConfigError: the package ``datasets`` is not installed.
        SourceError: the data set cannot be had.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ConfigError(
            "Hub data sets need the package `datasets`: pip install 'shiftlens[hub]'.\n"
            "Without it choose data=verifiable, or data=jsonl data.path=FILE."
        ) from error
    at = f"@{revision}" if revision else ""
    try:
        if files:
            address = f"hf://datasets/{repo}{at}/{files}"
            return load_dataset("json", data_files={split: address}, split=split)
        return load_dataset(repo, config, split=split, revision=revision)
    except Exception as error:  # the hub client, its HTTP library and `datasets` each raise their own kinds
        tried = f"{repo}{at}, " + (f"file {files}" if files else f"config {config or 'default'}, split {split}")
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise SourceError(
            f"Cannot load the data set {repo} from the hub.\n"
            f"  tried: {tried}\n"
            f"  got: {type(error).__name__}: {reason}\n"
            "  Some data sets ask you to accept their terms on their page and to set HF_TOKEN.\n"
            "  Offline choices: data=verifiable, or data=jsonl data.path=FILE with prompts of your own."
        ) from error
