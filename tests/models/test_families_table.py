"""docs/families.md says what the script measures."""

from __future__ import annotations

import subprocess
import sys

from helpers.command import ROOT


def test_the_table_of_families_is_what_the_script_prints():
    printed = subprocess.run(
        [sys.executable, ROOT / "scripts" / "families_table.py"], capture_output=True, text=True, check=True
    ).stdout
    assert "**no**" not in printed
    assert (ROOT / "docs" / "families.md").read_text(encoding="utf-8") == printed
