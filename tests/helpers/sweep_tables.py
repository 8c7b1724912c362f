"""What a sweep has written, read back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq


def cells(folder: Path) -> pd.DataFrame:
    """The summary's cells, each with the setting it was found at."""
    table = pd.read_parquet(folder / "tables" / "cells.parquet")
    assert pd.read_csv(folder / "tables" / "cells.csv").columns.tolist() == table.columns.tolist()
    return table.set_index(["saliency.b", "saliency.p", "name", "data"])


def rows_per_key(folder: Path) -> Counter[str]:
    shards = folder.glob("ledger/*/*.parquet")
    return Counter(key for shard in shards for key in pq.read_table(shard, columns=["key"])["key"].to_pylist())
