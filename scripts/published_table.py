"""Print the README's table of T1 and T2 on the published scores: ``python scripts/published_table.py FOLDER``."""

from __future__ import annotations

import argparse

from shiftlens.analyses.density.compute import examine
from shiftlens.analyses.density.grid import all_settings
from shiftlens.analyses.imported.published import LEVELS, published_table, read_published
from shiftlens.scores.settings import Settings


def main() -> None:
    """Read the folder, examine, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="with llama_7b.parquet and vicuna_7b.parquet")
    parser.add_argument("--permutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    records = read_published(asked.folder)
    # The paper's own search: its one L, every b, p from 2 to 6.
    found = examine(records, Settings(LEVELS, 7, 4), all_settings([LEVELS]), asked.permutations, asked.seed)
    print(published_table(found.findings))


if __name__ == "__main__":
    main()
