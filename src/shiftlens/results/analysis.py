"""The result of one run as plain data: what page, loggers, tables and terminal loop over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from shiftlens.results.finding import Finding
from shiftlens.results.section import Section


@dataclass(frozen=True)
class Subject:
    """One of the two models compared, as the page's head names it.

    Args:
        label: ``base`` or ``before``; ``tuned`` or ``after``.
        source: Where it came from.
    """

    label: str
    source: str


@dataclass(frozen=True)
class Analysis:
    """Everything that one run found.

    Args:
        sections: Sections in the order in which their findings are told.
        provenance: What produced the result: versions, git commit, models with fingerprints, settings, date.
        eyebrow: Kind of the report, above its title.
        title: Title of the page; ``Markup`` may set off the names in it.
        subjects: The two models compared.
        record: Further parts of ``findings.json``, by key.

    Raises:
        ValueError: Two sections have a table or a figure of one name.

    Example:
        >>> Analysis([Section(tables={"a": pd.DataFrame()}), Section(tables={"a": pd.DataFrame()})], {})
        Traceback (most recent call last):
        ValueError: two sections have a table named 'a'; names of tables and figures must be unique in a run
    """

    sections: Sequence[Section]
    provenance: Mapping[str, Any]
    eyebrow: str = "ShiftLens report"
    title: str = ""
    subjects: Sequence[Subject] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, names in (
            ("table", [name for section in self.sections for name in section.tables]),
            ("figure", [name for section in self.sections for name in section.figures]),
        ):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(
                    f"two sections have a {kind} named {twice!r}; names of tables and figures must be unique in a "
                    "run"
                )

    @property
    def findings(self) -> list[Finding]:
        """The findings of all sections."""
        return [finding for section in self.sections for finding in section.findings]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables of all sections, by name."""
        return {name: table for section in self.sections for name, table in section.tables.items()}

    @property
    def page_order(self) -> list[Section]:
        """Sections with a title, by rank."""
        return sorted((section for section in self.sections if section.title), key=lambda section: section.rank)
