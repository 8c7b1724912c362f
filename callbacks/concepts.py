"""Compares the concepts of the base and tuned feed-forward layers (paper, section on feed-forward networks)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from shiftlens.analyses.concepts.section import concepts_section
from shiftlens.annotate import (
    CANNOT_TELL,
    Annotation,
    AnnotationStoppedError,
    Annotator,
    Concept,
    annotator_from_config,
    annotator_problems,
)
from shiftlens.callbacks.weight_view import WeightView
from shiftlens.models.families import FamilyView
from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM
from shiftlens.results.section import Section
from shiftlens.support.setting_rules import Number
from shiftlens.weights.by_layer import ModelConcepts, concepts_by_layer
from shiftlens.weights.layer_concepts import LayerConcepts
from shiftlens.weights.store import Arrays
from shiftlens.words import parts_of_speech

log = logging.getLogger(__name__)


class Concepts(WeightView):
    """Computes, names, describes and compares the concepts: principal components of each layer's patterns.

    Args:
        words: Configuration group ``words``.
        annotator: Configuration group ``annotator``.
        cache: Folder of caches.
        layers: Layers to analyze, from 0; ``None`` for all.
        components: Number of concepts per layer (300 in the paper); fewer where a layer is smaller.
        top_words: Number of words of a concept (50 in the paper).
        shown: Number of these words that the annotator reads and the tables contain (30 in the paper).
        seed: Random seed for the bootstrap and the random rotations.
    """

    kind = "concepts"
    title = "Concepts"
    rules: ClassVar = {**WeightView.rules, **dict.fromkeys(("components", "top_words", "shown"), Number(1))}

    def __init__(
        self,
        words: Mapping[str, Any],
        annotator: Mapping[str, Any],
        cache: str | Path,
        layers: Sequence[int] | None = None,
        components: int = 300,
        top_words: int = 50,
        shown: int = 30,
        seed: int = 0,
    ) -> None:
        super().__init__(layers, words, cache)
        self.components, self.top_words, self.shown, self.seed = components, top_words, shown, seed
        self._annotator = dict(annotator)

    def problems(self) -> list[str]:
        """Check the settings, those of the annotator too; return one line for each that cannot be used."""
        problems = super().problems()
        if not problems and self.shown > self.top_words:
            problems.append(f"callbacks.concepts.shown={self.shown}: expected at most top_words={self.top_words}")
        return problems + annotator_problems(self._annotator)

    def settings(self) -> dict[str, Any]:
        """Give every setting that the numbers depend on, beside the model and the layer."""
        return {"components": self.components, "top_words": self.top_words}

    def missing(self, identity: Identity) -> bool:
        """Tell whether a layer of a model has not been looked at with these settings.

        Raises:
            ConfigError: A setting cannot be used, the annotator's among them.
        """
        missing = super().missing(identity)
        # Check the annotator's settings early; a local annotator is a model, which is loaded only when needed.
        if self._annotator.get("name") != "local":
            _ = self.annotator
        return missing

    @cached_property
    def annotator(self) -> Annotator:
        """The annotator that describes the concepts."""
        words = self.lexicon.words.words
        return annotator_from_config(self._annotator, words, self.lexicon.unit, parts_of_speech, self.cache)

    def compute(self, lm: LM, weights: FamilyView, layers: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        """Compute the concepts of the given layers and yield each layer with its arrays to store."""
        words = self.lexicon.words.words
        for layer, layer_concepts in concepts_by_layer(lm, layers, words, self.components, self.top_words):
            yield layer, vars(layer_concepts)

    def load(self, identity: Identity) -> ModelConcepts:
        """Load the stored concepts of a model."""
        store = self.store(identity)
        shape = store.shape
        assert shape is not None, "the model has no stored concepts"
        layers = {layer: LayerConcepts(**store.load(layer)) for layer in self.selected(shape)}
        return ModelConcepts(self.lexicon.words.words, shape["layers"], layers)

    def section(self, identities: Mapping[str, Identity]) -> Section:
        """Return the section with the concepts, their descriptions and rotation, and the topics of both models."""
        models = {role: self.load(identity) for role, identity in identities.items()}
        lists = {
            (role, layer, c): Concept(tuple(word for word, _ in model.named(layer, c, self.shown)))
            for role, model in models.items()
            for layer, layer_concepts in model.layers.items()
            for c in range(len(layer_concepts.words))
        }
        unique = list(dict.fromkeys(lists.values()))
        why_not = ""
        try:
            answers = dict(zip(unique, self.annotator.annotate(unique), strict=True))
        except AnnotationStoppedError as error:
            log.warning("%s", error)
            why_not = str(error)
            answers = {unique[index]: annotation for index, annotation in error.done.items()}
        unasked = dataclasses.replace(CANNOT_TELL, note="not asked about")
        described: dict[str, dict[int, list[Annotation]]] = {
            role: {layer: [] for layer in model.layers} for role, model in models.items()
        }
        for (role, layer, _), concept in lists.items():
            described[role][layer].append(answers.get(concept, unasked))
        return concepts_section(models, described, self.shown, self.seed, why_not)
