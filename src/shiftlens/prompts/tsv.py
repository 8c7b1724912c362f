"""Reads the tab-separated format in which the paper's annotated prompts were published (arXiv 2310.00492)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from shiftlens.errors import Problem, PromptError
from shiftlens.prompts.schema import Span
from shiftlens.prompts.validate import FileRow, locate

COLUMNS = ("ID", "Prompt", "Response", "Instruct&Context")
BETWEEN_PHRASES = "|||"
BEFORE_CONTEXT = "&&&"


def decode(field: str) -> str:
    r"""Decode the quotes and escapes of one field.

    Double quotes around the whole field are removed, and doubled quotes inside such a field become single ones.
    Then every ``/n`` becomes a newline and every ``/t`` a tab. The format has no escape for a literal ``/n``:
    ``https://a.io/news`` decodes to ``https://a.io``, a newline and ``ews``. This also happens to the published
    phrases, so they still match their prompts.

    Example:
        >>> decode('"Say ""hi"":/nnow"')
        'Say "hi":\nnow'
    """
    inner = field[1:-1]
    if len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', ""):
        field = inner.replace('""', '"')
    return field.replace("/n", "\n").replace("/t", "\t")


def place(text: str, phrases: Sequence[str], taken: Sequence[Span] = ()) -> tuple[list[Span], list[str]]:
    """Assign to each phrase its first occurrence in a text that is still free.

    If no free occurrence is left, one that overlaps another phrase is accepted, because the published annotations
    contain phrases inside other phrases. No occurrence is assigned twice.

    Args:
        text: Text of the prompt.
        phrases: Verbatim pieces of the text; each is searched for as it is, then without white space at its ends.
        taken: Spans of the other kind of phrase, avoided if there is another occurrence.

    Returns:
        The spans, in the order of the phrases, and the phrases without a span.

    Example:
        >>> place("do it, do it", ["do it", "do it ", "undo"])
        ([(0, 5), (7, 12)], ['undo'])
    """
    spans: list[Span] = []
    lost: list[str] = []
    for phrase in phrases:
        occurrences = [*locate(text, phrase), *locate(text, phrase.strip())]
        new = [span for span in occurrences if span not in spans]
        free = [span for span in new if not any(span[0] < end and start < span[1] for start, end in spans)]
        best = [span for span in free if not any(span[0] < end and start < span[1] for start, end in taken)]
        chosen = next(iter([*best, *free, *new]), None)
        if chosen is None:
            lost.append(phrase)
        else:
            spans.append(chosen)
    return spans, lost


def rows(text: str, where: str) -> Iterator[FileRow]:
    r"""Read the rows of a file in the paper's format.

    The header is ``ID, Prompt, Response, Instruct&Context``, in any order. Of further columns only ``rating`` is
    read. ``Instruct&Context`` contains instruction phrases separated by ``|||``, and optionally ``&&&`` followed
    by context phrases. The response was written by a person and becomes ``reference``.

    Args:
        text: Content of the file.
        where: Name of the file, for error messages.

    Yields:
        One row per line that is not blank, numbered by line.

    Raises:
        PromptError: The header lacks a column.

    Example:
        >>> table = "ID\tPrompt\tResponse\tInstruct&Context\na\tShout:/nhi\tHI\tShout:&&&hi"
        >>> next(rows(table, "f.tsv")).record["context"]
        [(7, 9)]
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    header = [decode(name).strip() for name in lines[0].split("\t")]
    missing = [name for name in COLUMNS if name not in header]
    if missing and text.strip():
        raise PromptError(where, [Problem(1, "", f"the header lacks {missing}; it has {header}")])
    names = ["rating" if name.lower() == "rating" else name for name in header]
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        values = line.split("\t")
        # Editors strip trailing tabs, so fields after the format's own columns may be missing.
        needed = 1 + max(names.index(name) for name in COLUMNS)
        if not needed <= len(values) <= len(names):
            message = f"expected {len(names)} fields between tabs, got {len(values)}"
            yield FileRow(number, None, (Problem(number, "", message),))
        else:
            yield _row(number, dict(zip(names, values, strict=False)))


def _row(number: int, fields: dict[str, str]) -> FileRow:
    text = decode(fields["Prompt"])
    problems: list[Problem] = []
    phrase_lists = decode(fields["Instruct&Context"]).split(BEFORE_CONTEXT)  # instruction, then context
    if len(phrase_lists) > 2:
        problems.append(Problem(number, COLUMNS[3], f"{BEFORE_CONTEXT!r} must occur at most once"))
    phrases = [[phrase for phrase in each.split(BETWEEN_PHRASES) if phrase.strip()] for each in phrase_lists[:2]]
    instruction, lost_instruction = place(text, phrases[0])
    context, lost_context = place(text, phrases[1] if len(phrases) > 1 else [], instruction)
    if not phrases[0]:
        problems.append(Problem(number, COLUMNS[3], "names no instruction phrase"))
    for phrase in [*lost_instruction, *lost_context]:
        message = f"{phrase!r} is not in the prompt, or not as often as it is listed"
        problems.append(Problem(number, COLUMNS[3], message))
    record: dict[str, Any] = {"text": text, "context": context}
    record["instruction"] = instruction or None
    record["id"] = decode(fields["ID"]).strip() or None
    record["reference"] = decode(fields["Response"]) or None
    rating = decode(fields.get("rating", "")).strip()
    if rating:
        try:
            record["rating"] = int(rating)
        except ValueError:
            problems.append(Problem(number, "rating", f"expected an integer, got {rating!r}"))
    return FileRow(number, record, tuple(problems))
