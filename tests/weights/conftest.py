"""Fixtures of the tests of the weight views."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.plain_weights import ROLES, plain_pairs, write_words

import shiftlens as sl


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Values of the group ``words``, whose files list the words of the tests."""
    return write_words(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def files(words):
    """Folder of the files of words."""
    return Path(words["vocabulary"]).parent


@pytest.fixture(scope="module")
def lms(pair):
    """Role -> model of the tiny pair."""
    return {role: sl.load(str(folder)) for role, folder in zip(ROLES, pair, strict=True)}


@pytest.fixture(scope="module")
def plain(pair, lms, files):
    """Role -> word pairs of the plain restatement."""
    return {role: plain_pairs(folder, lms[role], files) for role, folder in zip(ROLES, pair, strict=True)}
