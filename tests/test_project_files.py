"""The files that describe the project agree with each other and with what is installed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import shiftlens as sl

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
APACHE_2_0 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of https://www.apache.org/licenses/LICENSE-2.0.txt."""
MOST_BYTES = 5_000_000


def newest_release() -> tuple[str, str]:
    """Version and date of the newest release in the changelog."""
    headings = re.findall(
        r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert [date for _, date in headings] == sorted((date for _, date in headings), reverse=True)
    return headings[0]


def test_the_code_states_the_version_once():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "shiftlens.__version__"}


def test_changelog_and_citation_name_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert newest_release() == (sl.__version__, str(citation["date-released"]))
    assert citation["version"] == sl.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert (ROOT / "CHANGELOG.md").read_text().count("## [Unreleased]\n") == 1


def test_metadata_of_the_tree_have_version_and_licence(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "src/shiftlens/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / "meta").mkdir()
    command = "from setuptools import build_meta; build_meta.prepare_metadata_for_build_wheel('meta')"
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True, capture_output=True)
    (folder,) = (tmp_path / "meta").glob("*.dist-info")
    described = message_from_bytes((folder / "METADATA").read_bytes())
    assert described["Version"] == sl.__version__
    assert described["License-Expression"] == "Apache-2.0"
    assert described.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert (folder / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_installed_metadata_are_those_of_this_tree():
    installed = metadata.distribution("shiftlens")
    origin = json.loads(installed.read_text("direct_url.json") or "{}").get("url")
    if origin != ROOT.as_uri():
        pytest.skip(f"shiftlens is installed from {origin}")
    assert installed.version == sl.__version__, "run make setup"


def test_the_version_can_be_read_without_torch():
    command = "import shiftlens, sys; assert 'torch' not in sys.modules; print(shiftlens.__version__)"
    environment = {name: value for name, value in os.environ.items() if name != "SHIFTLENS_CHECK_SHAPES"}
    run = subprocess.run(
        [sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == sl.__version__


def test_the_licence_is_the_whole_text():
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_0


def test_the_notice_names_its_owner_and_files_that_exist():
    notice = (ROOT / "NOTICE").read_text()
    assert "ShiftLens contributors" in notice
    named = re.findall(r"(?:src|scripts)/[\w./-]*\w", notice)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_dependency_has_bounds_that_hold_the_tested_version():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = {
        canonicalize_name(name): version
        for name, _, version in (line.partition("==") for line in lines if not line.startswith("#"))
    }
    for text in PROJECT["project"]["dependencies"]:
        dependency = Requirement(text)
        operators = {bound.operator for bound in dependency.specifier}
        assert operators >= {">=", "<"}, text
        assert tested[canonicalize_name(dependency.name)] in dependency.specifier, text


def test_no_large_file_is_tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout, so the tracked files are not known")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert [file.name for file in files if file.is_file() and file.stat().st_size > MOST_BYTES] == []
