"""Describes what the words of a concept have in common, by rule or with a language model."""

from shiftlens.annotate.annotation import (
    CANNOT_TELL,
    LEVELS,
    TASKS,
    Annotation,
    AnnotationStoppedError,
    Annotator,
    Concept,
)
from shiftlens.annotate.annotator_config import annotator_from_config
from shiftlens.annotate.endpoint import Endpoint
from shiftlens.annotate.lexical import LexicalAnnotator
from shiftlens.annotate.local import LocalAnnotator
from shiftlens.annotate.service import OpenAIAnnotator

__all__ = [
    "CANNOT_TELL",
    "LEVELS",
    "TASKS",
    "Annotation",
    "AnnotationStoppedError",
    "Annotator",
    "Concept",
    "Endpoint",
    "LexicalAnnotator",
    "LocalAnnotator",
    "OpenAIAnnotator",
    "annotator_from_config",
]
