"""Prints the table of T1 and T2 on the published scores, as in the README.

Usage: ``python scripts/published_table.py FOLDER``.
"""

from __future__ import annotations

import argparse

from shiftlens.analyses.density.compute import examine
from shiftlens.analyses.density.grid import all_settings
from shiftlens.analyses.imported.published import LEVELS, published_table, read_published
from shiftlens.scores.settings import Settings


def main() -> None:
    """Parse the command line, run both tests, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="with llama_7b.parquet and vicuna_7b.parquet")
    parser.add_argument("--permutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    records = read_published(options.folder)
    # The settings that the paper searched: its only L, every b, and p from 2 to 6.
    evidence = examine(records, Settings(LEVELS, 7, 4), all_settings([LEVELS]), options.permutations, options.seed)
    print(published_table(evidence.findings))


if __name__ == "__main__":
    main()
