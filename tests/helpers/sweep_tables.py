"""What a sweep has written, read back; and what its jobs would have written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from shiftlens.sweep import JobRecord


def cells(folder: Path) -> pd.DataFrame:
    """The summary's cells, each with the setting it was found at."""
    table = pd.read_parquet(folder / "tables" / "cells.parquet")
    assert pd.read_csv(folder / "tables" / "cells.csv").columns.tolist() == table.columns.tolist()
    return table.set_index(["saliency.b", "saliency.p", "name", "data"])


def rows_per_key(folder: Path) -> Counter[str]:
    shards = folder.glob("ledger/*/*.parquet")
    return Counter(key for shard in shards for key in pq.read_table(shard, columns=["key"])["key"].to_pylist())


def finding(p: float | None, name: str = "x/y", **more: object) -> dict[str, object]:
    """A finding as a run writes it."""
    blank = dict.fromkeys(("question", "role", "view", "test", "effect_name", "verdict", "note", "why_not"), "")
    return {
        **blank, "name": name, "data": "d", "n": 9, "effect": p, "statistic": None, "ci": None, "p": p,
        "p_corrected": None, "p_others": {}, "expected": None, "corrected_over": [], **more,
    }  # fmt: skip


def write_job(sweep: Path, number: int, findings: list[dict[str, object]], **settings: int) -> JobRecord:
    """The folder of a job that is done, and its record."""
    folder = sweep / str(number)
    folder.mkdir(parents=True)
    record = {
        "findings": findings,
        "provenance": {"models": {"base": {"name": "a"}, "tuned": {"name": "b"}}, "settings": settings},
    }
    (folder / "findings.json").write_text(json.dumps(record))
    return JobRecord(number, [f"saliency.{k}={v}" for k, v in settings.items()], "done", str(number), 0.0, 1.0)
