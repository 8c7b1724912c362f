"""Reads prompts from public data sets on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from shiftlens.errors import ConfigError, Problem, SourceError
from shiftlens.prompts.validate import FileRow


def self_instruct(row: Mapping[str, Any]) -> dict[str, Any]:
    r"""Convert a row of Self-Instruct's 252 user-oriented tasks, in the paper's wording (arXiv 2310.00492).

    A task with an input becomes ``<instruction>\n\nInput: <input>\n\nOutput:``. The input is the context; the
    task and the word ``Input:`` are the instruction. The paper's annotators chose spans by meaning instead, and
    often marked part of the input as instruction. Those spans are only in the paper's published files, see
    :mod:`shiftlens.prompts.tsv`.

    Args:
        row: Row with ``id``, ``instruction`` and ``instances``.

    Returns:
        Fields of the prompt.

    Example:
        >>> record = self_instruct({"id": "a", "instruction": "Shout.", "instances": [{"input": "hi"}]})
        >>> record["text"], record["instruction"], record["context"]
        ('Shout.\n\nInput: hi\n\nOutput:', [(0, 6), (8, 14)], [(15, 17)])
    """
    instances = row["instances"]
    if isinstance(instances, Mapping):  # older versions of `datasets` return a list of objects as lists by key
        instances = [{key: values[0] for key, values in instances.items()}]
    task, task_input = row["instruction"], instances[0].get("input") or ""
    record: dict[str, Any] = {"id": row["id"], "text": task, "reference": instances[0].get("output")}
    if task_input:
        head = f"{task}\n\nInput: "
        record["text"] = f"{head}{task_input}\n\nOutput:"
        record["instruction"] = [(0, len(task)), (len(task) + 2, len(head) - 1)]
        record["context"] = [(len(head), len(head) + len(task_input))]
    return record


def lima(row: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a LIMA row: the first turn is the prompt; the second, if there is one, is the reference."""
    turns = row["conversations"]
    return {"text": turns[0], "reference": turns[1] if len(turns) > 1 else None}


def mt_bench(row: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an MT-Bench row: the first of its two turns, with the published reference answer if there is one."""
    reference = row.get("reference") or [None]
    return {"id": str(row["prompt_id"]), "text": row["prompt"][0], "reference": reference[0]}


def ifeval(row: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an IFEval row: only the prompt; IFEval's own checks are not translated."""
    return {"id": str(row["key"]), "text": row["prompt"]}


COLUMNS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "self_instruct": self_instruct,
    "lima": lima,
    "mt_bench": mt_bench,
    "ifeval": ifeval,
}


def map_rows(data: Iterable[Mapping[str, Any]], columns: str) -> Iterator[FileRow]:
    """Convert the rows of a data set to records of prompts.

    Args:
        data: Rows as ``datasets`` returns them.
        columns: Name of the conversion, a key of :data:`COLUMNS`.

    Yields:
        One row per record, numbered from 1. A row that the conversion cannot read has a problem and no record.

    Raises:
        ConfigError: ``columns`` is not a key of :data:`COLUMNS`.

    Example:
        >>> next(map_rows([{"key": 7, "prompt": "Sing."}], "ifeval")).record
        {'id': '7', 'text': 'Sing.'}
    """
    if columns not in COLUMNS:
        raise ConfigError(f"data.columns={columns!r} is not known; choose one of {', '.join(COLUMNS)}")
    for number, row in enumerate(data, start=1):
        try:
            yield FileRow(number, COLUMNS[columns](row))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            message = f"is not laid out as {columns!r} expects ({type(error).__name__}: {error})"
            yield FileRow(number, None, (Problem(number, "", f"{message}; it has {sorted(row)}"),))


def fetch(
    repo: str, *, config: str | None, split: str, files: str | None, revision: str | None
) -> Iterable[Mapping[str, Any]]:
    """Load one split of a data set from the hub, or from the local cache. No code of the data set is run.

    Args:
        repo: Data set on the hub, as ``owner/name``.
        config: Named configuration of the data set; ``None`` selects the default.
        split: Name of the split.
        files: JSON Lines file inside the repository, to read instead of the files that the repository declares;
            for data sets with a loading script, which ``datasets`` no longer runs.
        revision: Branch, tag or commit; ``None`` selects the main branch.

    Returns:
        The rows of the split.

    Raises:
        ConfigError: The package ``datasets`` is not installed.
        SourceError: The data set cannot be loaded; the message lists what was tried.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ConfigError(
            "Hub data sets need the package `datasets`: pip install 'shiftlens[hub]'.\n"
            "Without it choose data=verifiable, or data=jsonl data.path=FILE."
        ) from error
    suffix = f"@{revision}" if revision else ""
    try:
        if files:
            address = f"hf://datasets/{repo}{suffix}/{files}"
            return load_dataset("json", data_files={split: address}, split=split)
        return load_dataset(repo, config, split=split, revision=revision)
    except Exception as error:  # the hub client, its HTTP library and `datasets` each have their own errors
        tried = f"{repo}{suffix}, " + (
            f"file {files}" if files else f"config {config or 'default'}, split {split}"
        )
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise SourceError(
            f"Cannot load the data set {repo} from the hub.\n"
            f"  tried: {tried}\n"
            f"  got: {type(error).__name__}: {reason}\n"
            "  Some data sets ask you to accept their terms on their page and to set HF_TOKEN.\n"
            "  Offline choices: data=verifiable, or data=jsonl data.path=FILE with prompts of your own."
        ) from error
