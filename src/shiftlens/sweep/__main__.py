"""Writes the summary of a sweep again, e.g. after late jobs have ended: ``python -m shiftlens.sweep DIR``."""

from __future__ import annotations

import sys
from pathlib import Path

from shiftlens.errors import ConfigError
from shiftlens.sweep.summary import summarise

if len(sys.argv) != 2:
    sys.exit("usage: python -m shiftlens.sweep DIR, the folder that holds the numbered ones")
try:
    summary = summarise(Path(sys.argv[1]))
except ConfigError as error:
    sys.exit(f"Error: {error}")
print("\n".join(summary.lines()))
sys.exit(not summary.complete)
