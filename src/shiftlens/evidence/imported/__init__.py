"""Scores that were computed elsewhere: read, checked and matched, with no model."""

from shiftlens.evidence.imported.match import match
from shiftlens.evidence.imported.pickles import read_pickles
from shiftlens.evidence.imported.sample import Sample, Source
from shiftlens.evidence.imported.table import read_table

__all__ = ["Sample", "Source", "match", "read_pickles", "read_table"]
