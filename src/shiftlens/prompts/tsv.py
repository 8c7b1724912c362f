"""The tab-separated format in which the paper's annotated prompts were published (arXiv 2310.00492)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from shiftlens.errors import Problem, PromptError
from shiftlens.prompts.schema import Span
from shiftlens.prompts.validate import Row, locate

COLUMNS = ("ID", "Prompt", "Response", "Instruct&Context")
BETWEEN_PHRASES = "|||"
BEFORE_CONTEXT = "&&&"


def decode(field: str) -> str:
    r"""Undoes the quotes and escapes of one field.

    A field wrapped whole in double quotes loses them, and doubled quotes inside become single ones.
    Then every ``/n`` becomes a newline and every ``/t`` a tab. The format has no escape for a
    literal ``/n``: ``https://a.io/news`` decodes to ``https://a.io``, a newline and ``ews``. The
    published phrases went through the same step, so they still match their prompts.

    Example:
        >>> decode('"Say ""hi"":/nnow"')
        'Say "hi":\nnow'
    """
    inner = field[1:-1]
    if len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', ""):
        field = inner.replace('""', '"')
    return field.replace("/n", "\n").replace("/t", "\t")


def place(text: str, phrases: Sequence[str], taken: Sequence[Span] = ()) -> tuple[list[Span], list[str]]:
    """Finds each phrase at its first place that is still free.

    Where no free place is left, a place that partly overlaps another phrase is accepted: the published
    annotations have phrases inside other phrases. The same place is never given out twice.

    Args:
        text: the prompt.
        phrases: verbatim pieces of it; tried as they are, then without white space at the ends.
        taken: spans already given to the other kind of phrase, avoided while there is a choice.

    Returns:
        The spans found and the phrases without a place.

    Example:
        >>> place("do it, do it", ["do it", "do it ", "undo"])
        ([(0, 5), (7, 12)], ['undo'])
    """
    spans: list[Span] = []
    lost: list[str] = []
    for phrase in phrases:
        places = [*locate(text, phrase), *locate(text, phrase.strip())]
        new = [at for at in places if at not in spans]
        free = [at for at in new if not any(at[0] < end and start < at[1] for start, end in spans)]
        best = [at for at in free if not any(at[0] < end and start < at[1] for start, end in taken)]
        chosen = next(iter([*best, *free, *new]), None)
        if chosen is None:
            lost.append(phrase)
        else:
            spans.append(chosen)
    return spans, lost


def rows(text: str, where: str) -> Iterator[Row]:
    r"""Rows of a file in the paper's format.

    The header is ``ID, Prompt, Response, Instruct&Context``, in any order and perhaps with more columns,
    of which ``rating`` is read. The last field has instruction phrases separated by ``|||`` and then
    perhaps ``&&&`` and context phrases. The response is a person's: it becomes ``reference``.

    Args:
        text: the whole file.
        where: its name, for messages.

    Raises:
        PromptError: the header lacks a column.

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
        # Editors strip trailing tabs, so only the columns of the format are required.
        needed = 1 + max(names.index(name) for name in COLUMNS)
        if not needed <= len(values) <= len(names):
            message = f"expected {len(names)} fields between tabs, got {len(values)}"
            yield Row(number, None, (Problem(number, "", message),))
        else:
            yield _row(number, dict(zip(names, values, strict=False)))


def _row(number: int, fields: dict[str, str]) -> Row:
    text = decode(fields["Prompt"])
    problems: list[Problem] = []
    parts = decode(fields["Instruct&Context"]).split(BEFORE_CONTEXT)
    if len(parts) > 2:
        problems.append(Problem(number, COLUMNS[3], f"{BEFORE_CONTEXT!r} must occur at most once"))
    phrases = [[piece for piece in part.split(BETWEEN_PHRASES) if piece.strip()] for part in parts[:2]]
    instruction, lost = place(text, phrases[0])
    context, lost_too = place(text, phrases[1] if len(phrases) > 1 else [], instruction)
    if not phrases[0]:
        problems.append(Problem(number, COLUMNS[3], "names no instruction phrase"))
    for phrase in [*lost, *lost_too]:
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
    return Row(number, record, tuple(problems))
