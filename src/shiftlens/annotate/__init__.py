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
from shiftlens.annotate.annotator_config import ANNOTATOR_RULES, annotator_from_config, annotator_problems
from shiftlens.annotate.endpoint import Endpoint
from shiftlens.annotate.lexical import LexicalAnnotator
from shiftlens.annotate.local import LocalAnnotator
from shiftlens.annotate.service import OpenAIAnnotator

__all__ = [
    "ANNOTATOR_RULES",
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
    "annotator_problems",
]
