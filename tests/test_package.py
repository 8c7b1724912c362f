"""What is installed is what is in the tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

pytestmark = pytest.mark.command

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_every_file_of_the_source_tree(tmp_path):
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src", "hooks", "callbacks", "conf"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tracked.returncode:
        pytest.skip("not a git checkout, so the source files are not known")
    source = {
        "shiftlens/" + name.removeprefix("src/shiftlens/")
        for name in tracked.stdout.split()
        if not (ROOT / name).is_symlink()
    }
    # Built from a copy: a build folder left in the tree would bring deleted files back.
    copy = tmp_path / "tree"
    for name in [*tracked.stdout.split(), "pyproject.toml", "README.md", "LICENSE", "NOTICE"]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(copy)],
        check=True, capture_output=True,
    )  # fmt: skip
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = {name for name in wheel.namelist() if name.startswith("shiftlens/")}
    assert packed == source


@pytest.mark.parametrize("model", sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")))
def test_every_pair_composes_and_names_two_models(model):
    with initialize_config_module("shiftlens.conf", version_base="1.3"):
        cfg = compose("analyze", [f"model={model}"])
    assert cfg.model.name == model
    assert cfg.model.base
    assert cfg.model.tuned
    assert cfg.model.base != cfg.model.tuned


def test_every_option_of_every_group_composes():
    groups = [
        "data", "logger", "experiment", "trainer", "saliency", "callbacks", "paths", "words", "annotator", "launcher",
    ]  # fmt: skip
    for group in groups:
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            with initialize_config_module("shiftlens.conf", version_base="1.3"):
                command = "train" if path.stem in ("from_scratch", "shift", "fsdp") else "analyze"
                cfg = compose(command, [f"{group}={path.stem}"])
            assert cfg.model.name == "bundled"
            if path.stem == "quick":
                assert (cfg.data.limit, cfg.logger) == (6, {})
            elif group == "data":
                assert cfg.data.name == path.stem
    for group in ("tune", "pretrain", "trainer", "callbacks", "logger"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            with initialize_config_module("shiftlens.conf", version_base="1.3"):
                assert compose("train", [f"{group}={path.stem}"]).tune.start == "base"
