"""Packs the concepts of all layers into the report: words as indices into one list, flags as bits."""

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
"""Largest number of characters of the packed concepts; beyond it, each layer keeps only its first concepts."""


def pack_concepts(concepts: pd.DataFrame, rotation: pd.DataFrame | None, limit: int = LIMIT) -> dict[str, Any]:
    """Pack the concepts of base and tuned, layer by layer, small enough to embed in the report.

    Args:
        concepts: ``role, layer, component, ratio, words, description, level, task, note``.
        rotation: ``layer, component, matched, cosine, entered, left``; ``None`` if the models cannot be compared.
        limit: Largest number of characters of the result as JSON.

    Returns:
        JSON values. ``strings`` holds all words and descriptions; index 0 stands for no text. Each of ``layers``
        has for each role ``words`` (base64 of little-endian integers of ``word_bytes`` bytes [components, top],
        indices into ``strings``), ``marks`` (base64 of bits, row-major: the word left the base concept, or entered
        the tuned concept), ``ratio``, ``description`` and ``note`` (indices into ``strings``), ``level`` and
        ``task`` (indices from 1 into ``levels`` and ``tasks``); and ``match`` and ``cosine`` of each base
        component, or null where the models cannot be compared. Of all ``components`` of a layer, the first
        ``kept`` are packed; a match may lie beyond them.

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
            of_role = rows[rows["role"] == role]
            packed[role] = _pack_words(of_role, marked[role], strings, np.zeros((len(of_role), top), kind))
            packed[role] |= _pack_annotations(of_role, strings)
        if turned is not None:
            first = turned[turned["component"] < kept]
            packed["match"] = [int(i) for i in first["matched"]]
            packed["cosine"] = [round(float(c), 4) for c in first["cosine"]]
        layers.append(packed)
    head = {"strings": list(strings), "word_bytes": int(kind[-1]), "top": top, "levels": LEVELS, "tasks": TASKS}
    return {**head, "annotated": bool(concepts["description"].notna().any()), "layers": layers}


def _marked(turned: pd.DataFrame | None) -> dict[str, dict[int, set[str]]]:
    """Return, by role and component, the words that the matched component of the other role does not have."""
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
    for i, (component, listed) in enumerate(zip(rows["component"], rows["words"], strict=True)):
        only = marked.get(int(component), set())
        words[i, : len(listed)] = [strings[word] for word in listed]
        marks[i, : len(listed)] = [word in only for word in listed]
    return {"words": _base64(words), "marks": _base64(np.packbits(marks))}


def _pack_annotations(rows: pd.DataFrame, strings: dict[str, int]) -> dict[str, Any]:
    return {
        "ratio": [float(f"{ratio:.3g}") for ratio in rows["ratio"]],
        "description": [_number(strings, text) for text in rows["description"]],
        "note": [_number(strings, text) for text in rows["note"]],
        "level": [_index_from_1(LEVELS, name) for name in rows["level"]],
        "task": [_index_from_1(TASKS, name) for name in rows["task"]],
    }


def _number(strings: dict[str, int], text: object) -> int:
    return strings.setdefault(text, len(strings)) if isinstance(text, str) else 0


def _index_from_1(names: Sequence[str], name: object) -> int:
    """Return the index of a name, counted from 1; 0 for no name."""
    return names.index(name) + 1 if isinstance(name, str) else 0


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
