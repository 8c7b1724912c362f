"""Exact removal: what each response token loses without one unit of the text, with nothing computed twice."""

from shiftlens.attribution.removal.exact_removal import removal
from shiftlens.attribution.removal.suffixes import REMOVALS

__all__ = ["REMOVALS", "removal"]
