"""A pickle that would do harm."""

from __future__ import annotations

import os
from pathlib import Path


class Bomb:
    """Runs a command when it is unpickled as pickles are."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)
