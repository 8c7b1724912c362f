"""A checkout in which git wrote symbolic links as text files says how to mend it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[1]


def git(*words: str, cwd: Path) -> str:
    return subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_a_checkout_without_links_names_the_mend_and_the_mend_works(tmp_path: Path) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout of ShiftLens")
    copy = tmp_path / "copy"
    git("clone", "--quiet", "--shared", "--config", "core.symlinks=false", str(ROOT), str(copy), cwd=tmp_path)
    (copy / "src/shiftlens/__init__.py").write_text((ROOT / "src/shiftlens/__init__.py").read_text())
    assert (copy / "src/shiftlens/hooks").read_text() == "../../hooks", "git wrote a link as a file"
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "SHIFTLENS_CHECK_SHAPES": "0"}

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "import shiftlens; print(shiftlens.__file__)"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    message = run().stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError") and "callbacks, conf, hooks should be symbolic links" in message
    mend = message.split("then run: ")[1]
    subprocess.run(mend, shell=True, cwd=copy, capture_output=True, check=True)
    mended = run()
    assert mended.returncode == 0, mended.stderr
    assert Path(mended.stdout.strip()).is_relative_to(copy)
