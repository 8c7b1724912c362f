"""Checks raw records and converts them to prompts; collects all problems of a file before it raises an error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shiftlens.errors import Problem, PromptError
from shiftlens.prompts.schema import Prompt, Span

ALIASES = {"prompt": "text", "instruction_spans": "instruction", "context_spans": "context"}
FIELDS = ("id", "text", "instruction", "context", "reference", "response", "rating", "check", "dataset")
KNOWN = (*FIELDS, *ALIASES)
"""Every name that a field of a record may have."""


@dataclass(frozen=True)
class FileRow:
    """One record of a prompt file as it was read.

    Args:
        number: Number of the row, see :class:`shiftlens.errors.Problem`.
        record: Values by field name; ``None`` if the row could not be read at all.
        problems: Problems noticed while the row was read.
    """

    number: int
    record: Mapping[str, Any] | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one data set, and the problems of the rows that were left out.

    Args:
        prompts: Prompts, in file order.
        skipped: Problems of the rows that were left out; empty unless ``on_error=skip``.
        where: File or data set that the prompts come from.
    """

    prompts: list[Prompt]
    skipped: tuple[Problem, ...]
    where: str


def collect(
    rows: Iterable[FileRow], *, where: str, name: str, skip: bool = False, merge: bool = False
) -> PromptSet:
    """Check all rows and convert them to prompts.

    Args:
        rows: Rows as read.
        where: File or data set, for error messages.
        name: Data set of the rows that do not name one.
        skip: Whether to leave out rows with problems instead of raising an error.
        merge: Whether to join overlapping spans of one kind instead of reporting them. Published annotations
            contain such spans; the token masks are the same either way.

    Returns:
        The prompts and the problems of the rows that were left out.

    Raises:
        PromptError: A row has a problem and ``skip`` is false, or no prompt is left.

    Example:
        >>> done = collect([FileRow(1, {"text": "Say hi"}), FileRow(2, {})], where="f", name="mine", skip=True)
        >>> done.prompts[0].instruction, [str(problem) for problem in done.skipped]
        (((0, 6),), ['row 2, text: is missing'])
    """
    prompts: list[Prompt] = []
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for row in rows:
        faults = list(row.problems)
        prompt = None
        if row.record is not None:
            prompt = _Checker(row, faults).prompt(name, merge)
            first = seen.setdefault(prompt.id, row.number)
            if first != row.number:
                faults.append(Problem(row.number, "id", f"{prompt.id!r} is already the id of row {first}"))
        problems += faults
        if prompt is not None and not faults:
            prompts.append(prompt)
    if problems and not (skip and prompts):
        raise PromptError(where, problems)
    if not prompts:
        raise PromptError(where, [Problem(1, "", "expected at least one prompt, the data set is empty")])
    return PromptSet(prompts, tuple(problems), where)


def locate(text: str, phrase: str) -> Iterator[Span]:
    """Find all occurrences of a phrase in a text, including overlapping ones; yield their character offsets.

    Example:
        >>> list(locate("banana", "ana"))
        [(1, 4), (3, 6)]
    """
    start = text.find(phrase) if phrase else -1
    while start >= 0:
        yield start, start + len(phrase)
        start = text.find(phrase, start + 1)


def without(text: str, spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the spans of a text that the given spans do not cover, without white space at their ends.

    Example:
        >>> without("Shout: hello", [(7, 12)])
        ((0, 6),)
    """
    edges = [(0, 0), *sorted(spans), (len(text), len(text))]
    gaps: list[Span] = []
    end = 0
    for start, stop in edges:
        gap = text[end:start]
        if gap.strip():
            left = end + len(gap) - len(gap.lstrip())
            gaps.append((left, end + len(gap.rstrip())))
        end = max(end, stop)
    return tuple(gaps)


class _Checker:
    """Reads the fields of one row, and appends a problem to ``faults`` for each that is invalid."""

    def __init__(self, row: FileRow, faults: list[Problem]) -> None:
        self.number = row.number
        self.faults = faults
        self.record: dict[str, Any] = {}
        self.names: dict[str, str] = {}  # the field's name in the file (it may be an alias), for messages
        for key, value in (row.record or {}).items():
            field = ALIASES.get(key, key)
            if key not in KNOWN:
                near = difflib.get_close_matches(key, KNOWN, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                self.fault(key, f"is not a known field{hint} Known: {', '.join(KNOWN)}")
            elif field in self.record:
                self.fault(key, f"says the same as {self.names[field]!r}; give one of them")
            else:
                self.record[field], self.names[field] = value, key

    def fault(self, field: str, message: str) -> None:
        """Append a problem, with the name that the field has in the file."""
        self.faults.append(Problem(self.number, self.names.get(field, field), message))

    def prompt(self, name: str, merge: bool) -> Prompt:
        """Build the prompt; it is valid only if ``faults`` is still empty."""
        text = self.string("text", required=True) or ""
        context = self.spans("context", text, merge)
        if self.record.get("instruction") is not None:
            instruction = self.spans("instruction", text, merge)
            if self.record["instruction"] in ([], ()):
                self.fault("instruction", "is empty; leave it out if all of the text is the instruction")
        else:
            instruction = without(text, context)
            if text and not instruction:
                self.fault("context", "covers all of the text, so no instruction is left")
        return Prompt(
            id=self.string("id") or f"row-{self.number}",
            text=text,
            instruction=instruction,
            context=context,
            dataset=self.string("dataset") or name,
            reference=self.string("reference", empty=True),
            response=self.string("response", empty=True),
            rating=self.integer("rating"),
            check=self.check(),
        )

    def string(self, field: str, *, required: bool = False, empty: bool = False) -> str | None:
        """Read a string field; return ``None`` if it is absent or invalid."""
        value = self.record.get(field)
        if value is None:
            if required:
                self.fault(field, "is missing")
            return None
        if not isinstance(value, str):
            self.fault(field, f"expected a string, got {_show(value)}")
        elif not value.strip() and not empty:
            self.fault(field, "is empty")
        elif any("\ud800" <= letter <= "\udfff" for letter in value):
            self.fault(field, "has half of a surrogate pair, which no tokenizer can read")
        else:
            return value
        return None

    def integer(self, field: str) -> int | None:
        """Read an integer field; return ``None`` if it is absent or invalid."""
        value = self.record.get(field)
        if value is None or _is_int(value):
            return value
        self.fault(field, f"expected an integer, got {_show(value)}")
        return None

    def check(self) -> Mapping[str, Any] | None:
        """Read the check of the response; return ``None`` if it is absent or not an object."""
        value = self.record.get("check")
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.fault("check", f"expected an object with a name, got {_show(value)}")
            return None
        from shiftlens.prompts.verifiable import check_problems

        message = check_problems(value)
        if message:
            self.fault("check", message)
        return value

    def spans(self, field: str, text: str, merge: bool) -> tuple[Span, ...]:
        """Read spans given as offsets or as verbatim pieces of the text; return them sorted, without overlaps."""
        value = self.record.get(field)
        if value is None:
            return ()
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or any(_is_int(item) for item in items):
            self.fault(field, f"expected [[start, end], ...] or pieces of the text, got {_show(value)}")
            return ()
        valid = sorted(span for item in items if (span := self.span(field, item, text)) is not None)
        joined: list[Span] = []
        for start, end in valid:
            if joined and start < joined[-1][1]:
                if not merge:
                    self.fault(field, f"[{start}, {end}] overlaps {list(joined[-1])}")
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return tuple(joined)

    def span(self, field: str, item: Any, text: str) -> Span | None:
        """Read one span, given as offsets or as a piece of the text; return ``None`` if it is invalid."""
        if isinstance(item, str):
            occurrences = list(locate(text, item))
            if len(occurrences) == 1:
                return occurrences[0]
            if text:  # a missing text is already reported
                count = len(occurrences)
                self.fault(field, f"{_show(item)} must occur in the text exactly once, it occurs {count} times")
            return None
        pair = isinstance(item, (list, tuple)) and len(item) == 2
        if not pair or not all(_is_int(offset) for offset in item):
            self.fault(field, f"expected a pair [start, end] of integers, got {_show(item)}")
            return None
        start, end = item
        if start >= end:
            self.fault(field, f"[{start}, {end}] is empty: start must be below end")
        elif start < 0 or (text and end > len(text)):
            self.fault(field, f"[{start}, {end}] is outside the text of {len(text)} characters")
        else:
            return start, end
        return None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
