"""Writes the question about a concept, the same for every language model, and parses the answer."""

from __future__ import annotations

import json
import re
from typing import Any

from shiftlens.annotate.annotation import CANNOT_TELL, LEVELS, TASKS, Annotation, Concept
from shiftlens.models.identity import digest

_PROMPT = """\
Below are the words that lie closest to one direction inside a language model, closest first.
Say what most of them have in common.

1. description: one short line. If you see no clear common ground, say "cannot tell".
2. level: the linguistic level of what they share.
   phonology: they sound or are spelled alike; morphology: they share a stem, prefix or suffix;
   syntax: they share a part of speech or grammatical role; semantics: they share a topic or meaning.
3. task: what such words serve most: writing, math, coding, translation, or none of these.

Answer with one JSON object and nothing else, for example:
{"description": "names of European capitals", "level": "semantics", "task": "none"}
{"description": "cannot tell", "level": null, "task": "none"}

Words: """

ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "description": {"type": "string"},
        "level": {"anyOf": [{"type": "string", "enum": list(LEVELS)}, {"type": "null"}]},
        "task": {"type": "string", "enum": list(TASKS)},
    },
    "required": ["description", "level", "task"],
    "additionalProperties": False,
}
"""JSON schema of an answer, for services that can enforce a schema."""

PROMPT_VERSION = digest([_PROMPT, ANSWER_SCHEMA])
"""Hash of the wording and the schema; part of the key of every stored answer."""

_NO_ANSWER = frozenset({"", "cannot tell", "can't tell", "cant tell", "unknown", "unclear", "none", "n/a"})
_LONGEST = 200


def question(concept: Concept) -> str:
    """Return the prompt that asks about one concept.

    Args:
        concept: Concept whose words are listed in the prompt.

    Example:
        >>> question(Concept(("paris", "rome"))).splitlines()[-1]
        'Words: paris, rome'
    """
    return _PROMPT + ", ".join(concept.words)


def read_answer(text: str) -> Annotation | None:
    """Parse and check a model's answer, the first JSON object in its text.

    Args:
        text: Answer of the model; text or a code fence may surround the JSON object.

    Returns:
        The annotation, or ``None`` if the answer is invalid: no JSON object, no description, or a level or task
        that is not among those listed in the prompt.

    Example:
        >>> read_answer('Sure! {"description": "Verbs.", "level": "Syntax", "task": "none"}').level
        'syntax'
        >>> read_answer('{"description": "cannot tell", "level": null, "task": "none"}').told
        False
        >>> read_answer('{"description": "verbs", "level": "grammar", "task": "none"}') is None
        True
    """
    values = _first_object(text)
    description = (values or {}).get("description", "")
    if values is None or "description" not in values or not isinstance(description, str | None):
        return None
    line = " ".join((description or "").split())[:_LONGEST]
    if line.rstrip(".!").lower() in _NO_ANSWER:
        return CANNOT_TELL
    level, task = (str(values.get(key) or "none").strip().lower() for key in ("level", "task"))
    if level not in LEVELS or task not in TASKS:
        return None
    return Annotation(line, level, task)


def _first_object(text: str) -> dict[str, Any] | None:
    """Return the first JSON object in a text, or ``None`` if there is none."""
    decoder = json.JSONDecoder()
    for start in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, start.start())
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None
