"""One tuning whose shift is measured, for all tests of the shift."""

from __future__ import annotations

import json

import pytest
from helpers.plain_shift import NEW
from helpers.plain_weights import write_words
from helpers.shift_run import RECORDS, few_settings, tuned_run


@pytest.fixture(scope="module")
def small_grid():
    with few_settings():
        yield


@pytest.fixture(scope="session")
def shift_words(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="session")
def held_out(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "held_out.jsonl"
    path.write_text("\n".join(map(json.dumps, RECORDS)))
    return {"name": "mine", "reader": "jsonl", "path": str(path), "max_new_tokens": NEW}


@pytest.fixture(scope="session")
def shift_run(pair, held_out, shift_words, tmp_path_factory):
    """A tuning with looks at steps 0, 2 and 4."""
    pytest.importorskip("wandb")
    with few_settings():
        return tuned_run(pair, tmp_path_factory.mktemp("run"), held_out, shift_words)
