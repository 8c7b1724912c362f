"""Stores the answers of language models on disk, one small JSON file each, keyed by content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shiftlens.annotate.annotation import Annotation, Concept
from shiftlens.annotate.annotator_prompt import PROMPT_VERSION
from shiftlens.models.identity import digest
from shiftlens.support.whole_files import write_text


class AnswerCache:
    """Store of annotations, keyed by the model and its settings, the wording of the question, and the words.

    Any number of processes may write to one folder at the same time.

    Args:
        folder: Folder of the files; created if missing.
        asked: Model that answers and every setting on which an answer depends; never a secret.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> cache = AnswerCache(folder, {"model": "m"})
        >>> cache.put(Concept(("a", "b")), Annotation("letters", "semantics", "none"))
        >>> cache.get(Concept(("a", "b"))).description
        'letters'
        >>> AnswerCache(folder, {"model": "other"}).get(Concept(("a", "b"))) is None
        True
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any]) -> None:
        self.folder = folder
        self._asked = dict(asked)
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, concept: Concept) -> Annotation | None:
        """Return the stored annotation, or ``None`` if there is none or its file cannot be read."""
        try:
            values = json.loads(self._path(concept).read_text(encoding="utf-8"))["annotation"]
            return Annotation(**{**values, "words": tuple(values["words"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, concept: Concept, annotation: Annotation) -> None:
        """Store an annotation; its file is written completely or not at all."""
        values = {"asked": self._asked, "concept": concept.words, "annotation": asdict(annotation)}
        write_text(self._path(concept), json.dumps(values, indent=1))

    def _path(self, concept: Concept) -> Path:
        key = digest({"asked": self._asked, "prompt": PROMPT_VERSION, "words": concept.words})
        return self.folder / f"{key}.json"
