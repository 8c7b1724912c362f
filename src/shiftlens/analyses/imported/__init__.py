"""Reads, checks and matches scores that were computed elsewhere; loads no model."""

from shiftlens.analyses.imported.imported_sample import Sample, Source
from shiftlens.analyses.imported.match import match
from shiftlens.analyses.imported.read_parquet import read_table
from shiftlens.analyses.imported.read_pickles import read_pickles

__all__ = ["Sample", "Source", "match", "read_pickles", "read_table"]
