"""What an annotator that is a language model is asked and answers in the tests."""

from __future__ import annotations

from shiftlens.annotate import (
    Annotation,
    Concept,
)

KEY = "sk-secret-0123456789"
GOOD = '{"description": "capitals", "level": "semantics", "task": "none"}'
CAPITALS = Annotation("capitals", "semantics", "none")


def concepts(n: int) -> list[Concept]:
    return [Concept((f"paris{i}", "rome")) for i in range(n)]
