"""Keeps the answers of language models on disk, one small JSON file each, keyed by content."""

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
    """Annotations by annotating model, wording of the question, and words. Any number of processes may write.

    Args:
        folder: Folder of the answers.
        asked: The model asked, and every setting that an answer depends on; never a secret.

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
        """Read the annotation of a concept; ``None`` where there is none or its file cannot be read."""
        try:
            values = json.loads(self._path(concept).read_text(encoding="utf-8"))["annotation"]
            return Annotation(**{**values, "words": tuple(values["words"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, concept: Concept, annotation: Annotation) -> None:
        """Keep the annotation of a concept; its file is written whole or not at all."""
        values = {"asked": self._asked, "concept": concept.words, "annotation": asdict(annotation)}
        write_text(self._path(concept), json.dumps(values, indent=1))

    def _path(self, concept: Concept) -> Path:
        key = digest({"asked": self._asked, "prompt": PROMPT_VERSION, "words": concept.words})
        return self.folder / f"{key}.json"
