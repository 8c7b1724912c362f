"""The concepts of all layers, packed for the page: words as numbers into one list, flags as bits."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from shiftlens.annotate.annotation import LEVELS, TASKS
from shiftlens.models.roles import ROLES

LIMIT = 3_000_000
"""Characters that the packed concepts may take; where all would be longer, the first of each layer are kept."""


def pack_concepts(concepts: pd.DataFrame, rotation: pd.DataFrame | None, limit: int = LIMIT) -> dict[str, Any]:
    """Concepts of base and tuned, layer by layer, small enough to embed.

    Args:
        concepts: ``role, layer, component, ratio, words, description, level, task, note``.
        rotation: ``layer, component, matched, cosine, entered, left``; ``None`` if the two cannot be compared.
        limit: characters that the result may take as JSON.

    Returns:
        JSON values. ``strings`` holds all words and descriptions; number 0 is none. Each of ``layers`` has by
        role ``words`` (base64 of little-endian integers of ``word_bytes`` bytes [components, top], numbers into
        ``strings``), ``marks`` (base64 of bits, row-major: the word left the base concept, or entered the tuned
        one), ``ratio``, ``description`` and ``note`` (numbers into ``strings``), ``level`` and ``task`` (numbers
        from 1 into ``levels`` and ``tasks``); and ``match`` and ``cosine`` of each base component, or null where
        the two cannot be compared. A match may lie beyond the ``kept`` of ``components`` that are there.

    Example:
        >>> both = pd.DataFrame({"role": ["base", "tuned"], "layer": 0, "component": 0, "ratio": 0.5, "note": ""})
        >>> both = both.assign(words=[["sea"], ["sea"]], description=None, level=None, task=None)
        >>> packed = pack_concepts(both, None)
        >>> packed["strings"], packed["kept"], packed["layers"][0]["match"]
        (['', 'sea'], 1, None)
    """
    components = int(concepts["component"].max()) + 1
    kept = components
    while True:
        packed = _pack(concepts, rotation, kept)
        size = len(json.dumps(packed, ensure_ascii=False))
        if size <= limit or kept == 1:
            return {**packed, "kept": kept, "components": components}
        kept = max(min(kept * limit // size, kept - 1), 1)


def _pack(concepts: pd.DataFrame, rotation: pd.DataFrame | None, kept: int) -> dict[str, Any]:
    concepts = concepts[concepts["component"] < kept].sort_values("component")
    listed = dict.fromkeys(word for words in concepts["words"] for word in words)
    strings = {"": 0} | {word: number for number, word in enumerate(listed, start=1)}
    kind, top = "<u2" if len(strings) <= 1 << 16 else "<u4", int(concepts["words"].map(len).max())
    layers = []
    for layer, rows in concepts.groupby("layer"):
        turned = None if rotation is None else rotation[rotation["layer"] == layer].sort_values("component")
        marked = _marked(turned)
        packed: dict[str, Any] = {"layer": int(str(layer)), "match": None, "cosine": None}
        for role in ROLES:
            part = rows[rows["role"] == role]
            packed[role] = _pack_words(part, marked[role], strings, np.zeros((len(part), top), kind))
            packed[role] |= _pack_annotations(part, strings)
        if turned is not None:
            first = turned[turned["component"] < kept]
            packed["match"] = [int(i) for i in first["matched"]]
            packed["cosine"] = [round(float(c), 4) for c in first["cosine"]]
        layers.append(packed)
    head = {"strings": list(strings), "word_bytes": int(kind[-1]), "top": top, "levels": LEVELS, "tasks": TASKS}
    return {**head, "annotated": bool(concepts["description"].notna().any()), "layers": layers}


def _marked(turned: pd.DataFrame | None) -> dict[str, dict[int, set[str]]]:
    """By role, the words of each component that only this side of its match has."""
    if turned is None:
        return {"base": {}, "tuned": {}}
    return {
        "base": {int(i): set(words) for i, words in zip(turned["component"], turned["left"], strict=True)},
        "tuned": {int(i): set(words) for i, words in zip(turned["matched"], turned["entered"], strict=True)},
    }


def _pack_words(
    rows: pd.DataFrame, marked: dict[int, set[str]], strings: dict[str, int], words: np.ndarray
) -> dict[str, Any]:
    marks = np.zeros(words.shape, bool)
    for place, (component, listed) in enumerate(zip(rows["component"], rows["words"], strict=True)):
        only = marked.get(int(component), set())
        words[place, : len(listed)] = [strings[word] for word in listed]
        marks[place, : len(listed)] = [word in only for word in listed]
    return {"words": _base64(words), "marks": _base64(np.packbits(marks))}


def _pack_annotations(rows: pd.DataFrame, strings: dict[str, int]) -> dict[str, Any]:
    return {
        "ratio": [float(f"{ratio:.3g}") for ratio in rows["ratio"]],
        "description": [_number(strings, text) for text in rows["description"]],
        "note": [_number(strings, text) for text in rows["note"]],
        "level": [_place(LEVELS, name) for name in rows["level"]],
        "task": [_place(TASKS, name) for name in rows["task"]],
    }


def _number(strings: dict[str, int], text: object) -> int:
    return strings.setdefault(text, len(strings)) if isinstance(text, str) else 0


def _place(names: Sequence[str], name: object) -> int:
    """Place of a name from 1; 0 for none."""
    return names.index(name) + 1 if isinstance(name, str) else 0


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
