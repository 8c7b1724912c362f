"""Findings as JSON and all tables as Parquet, each file written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from shiftlens.results.analysis import Analysis
from shiftlens.results.finding import Finding

_COLUMNS = (
    "name", "view", "data", "role", "question", "null", "test", "n", "groups", "effect", "effect_name",
    "ci_low", "ci_high", "p", "p_corrected", "verdict", "statistic", "p_others", "controls", "note",
)  # fmt: skip


def write_tables(analysis: Analysis, folder: Path | str) -> list[Path]:
    """Write ``findings.json`` and ``tables/{samples,tokens,profile,findings}.parquet``, and further views' tables.

    Args:
        analysis: the run.
        folder: where to write; created if missing.

    Returns:
        The files written.

    Raises:
        ValueError: if the provenance holds a number JSON cannot hold (NaN, infinity).

    Example:
        >>> none = pd.DataFrame()
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
    """Findings as a table, one row each: what holds several values as JSON text, ``ci`` as two columns.

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
