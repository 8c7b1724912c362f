"""Writes the findings of a run as JSON and all of its tables as Parquet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from shiftlens.results.analysis import Analysis
from shiftlens.results.finding import Finding
from shiftlens.support.whole_files import write_parquet, write_text


def write_tables(analysis: Analysis, folder: Path | str) -> list[Path]:
    """Write ``findings.json``, ``tables/findings.parquet`` and the tables of all sections.

    Args:
        analysis: The run.
        folder: Where to write; created if missing.

    Returns:
        The files written.

    Raises:
        ValueError: The provenance holds a number that JSON cannot hold (NaN, infinity).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_tables(Analysis([], {}), folder)]
        ['findings.json', 'findings.parquet']
    """
    folder = Path(folder)
    record = {
        "findings": [finding.to_dict() for finding in analysis.findings],
        **analysis.record,
        "provenance": dict(analysis.provenance),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    paths = [write_text(folder / "findings.json", text)]
    for name, frame in all_tables(analysis).items():
        paths.append(write_parquet(folder / "tables" / f"{name}.parquet", frame))
    return paths


def all_tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """The findings as a table, and the tables of all sections, by name."""
    return {"findings": findings_frame(analysis.findings), **analysis.tables}


def findings_frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """Make a table of findings, one row each; fields with several values become JSON text, ``ci`` two columns.

    Example:
        >>> findings_frame([]).columns[:3].tolist()
        ['name', 'view', 'data']
    """
    names = [field.name for field in fields(Finding)]
    ci_index = names.index("ci")
    columns = [*names[:ci_index], "ci_low", "ci_high", *names[ci_index + 1 :]]
    rows: list[dict[str, Any]] = []
    for finding in findings:
        row = finding.to_dict()
        row["ci_low"], row["ci_high"] = row.pop("ci") or (None, None)
        for several in ("groups", "p_others", "controls", "corrected_over"):
            row[several] = json.dumps(row[several], allow_nan=False)
        rows.append(row)
    numbers = ["effect", "ci_low", "ci_high", "p", "p_corrected", "statistic"]
    texts = {"expected": "str"} if rows else {}
    # A column that is None throughout would otherwise be stored without a type.
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(numbers, "float64") | texts)
