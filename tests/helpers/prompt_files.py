"""Prompt files written by a test, and what reading them gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shiftlens.errors import PromptError
from shiftlens.prompts.readers import PromptSet, read_prompts


def jsonl(path: Path, *records: Any) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records), "utf-8")
    return path


def read(path: Path, **data: Any) -> PromptSet:
    return read_prompts({"name": "mine", "reader": path.suffix[1:], "path": str(path)} | data)


def faults(path: Path, **data: Any) -> list[tuple[int, str]]:
    with pytest.raises(PromptError) as caught:
        read(path, **data)
    return [(problem.row, problem.field) for problem in caught.value.problems]


def parts(text: str, spans: tuple[tuple[int, int], ...]) -> list[str]:
    return [text[start:end] for start, end in spans]
