"""The commands as a user types them, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDS = [
    {
        "id": "one",
        "text": "Fix the grammar: me and him goes",
        "instruction": [[0, 16]],
        "context": [[17, 32]],
    },
    {"id": "two", "text": "Write the words in order, please: b a c", "instruction": [[0, 32]]},
    {"id": "three", "text": "Translate this to French", "instruction": [[0, 24]], "rating": 4},
]


def run(*words: str, cwd: Path, script: str = "analyze.py", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / script), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "COLUMNS": "160", "SHIFTLENS_CHECK_SHAPES": "0", **env},
    )
