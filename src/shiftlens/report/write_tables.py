"""Writes the findings of a run as JSON and all of its tables as Parquet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from shiftlens.results.analysis import Analysis
from shiftlens.results.finding import Finding
from shiftlens.support.whole_files import write_parquet, write_text

_COLUMNS = (
    "name", "view", "data", "role", "question", "null", "test", "n", "groups", "effect", "effect_name",
    "ci_low", "ci_high", "p", "p_corrected", "verdict", "statistic", "p_others", "controls", "note",
)  # fmt: skip


def write_tables(analysis: Analysis, folder: Path | str) -> list[Path]:
    """Write ``findings.json``, the four tables of every run, and the tables of the sections.

    The four are ``tables/{samples,tokens,profile,findings}.parquet``.

    Args:
        analysis: Results of the run.
        folder: Folder to write into; created if missing.

    Returns:
        The files written.

    Raises:
        ValueError: The provenance holds a number that JSON cannot hold (NaN, infinity).

    Example:
        >>> none = pd.DataFrame()
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_tables(Analysis([], none, none, none, [], {}), folder)][:2]
        ['findings.json', 'samples.parquet']
    """
    folder = Path(folder)
    record = {
        "findings": [finding.to_dict() for finding in analysis.findings],
        "provenance": dict(analysis.provenance),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    paths = [write_text(folder / "findings.json", text)]
    frames = {
        "samples": analysis.samples,
        "tokens": analysis.tokens,
        "profile": analysis.profile,
        "findings": findings_frame(analysis.findings),
        **analysis.tables,
    }
    for name, frame in frames.items():
        paths.append(write_parquet(folder / "tables" / f"{name}.parquet", frame))
    return paths


def findings_frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """Make a table of findings, one row each; fields with several values become JSON text, ``ci`` two columns.

    Example:
        >>> findings_frame([]).columns[:3].tolist()
        ['name', 'view', 'data']
    """
    rows: list[dict[str, Any]] = []
    for finding in findings:
        row = finding.to_dict()
        row["ci_low"], row["ci_high"] = row.pop("ci") or (None, None)
        row["groups"] = json.dumps(row["groups"], allow_nan=False)
        row["p_others"] = json.dumps(row["p_others"], allow_nan=False)
        row["controls"] = json.dumps(row["controls"], allow_nan=False)
        rows.append(row)
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    numbers = ["effect", "ci_low", "ci_high", "p", "p_corrected", "statistic"]
    # A column that is None throughout would otherwise be stored without a type.
    return frame.astype(dict.fromkeys(numbers, "float64"))
