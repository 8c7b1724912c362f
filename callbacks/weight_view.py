"""Defines the base class of the two weight analyses: vocabulary, choice of layers, and storage layer by layer."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from shiftlens.callbacks.base import View
from shiftlens.errors import ConfigError
from shiftlens.models.families import FamilyView, view
from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM
from shiftlens.models.sources import short_name
from shiftlens.support.number_rules import index_problems
from shiftlens.weights.by_layer import select
from shiftlens.weights.store import Arrays, LayerStore
from shiftlens.words import Lexicon, lexicon_from_config


class WeightView(View):
    """Analysis of a model's weights, one layer at a time.

    Args:
        layers: Layers to analyze, from 0; ``None`` for all.
        words: Configuration group ``words``.
        cache: Folder of caches; the results are stored in its folder ``weights``.
    """

    kind: ClassVar[str]
    """Name of the analysis on disk and in the configuration."""
    title: ClassVar[str]
    """Name of the analysis in the progress bar."""

    def __init__(self, layers: Sequence[int] | None, words: Mapping[str, Any], cache: str | Path) -> None:
        self.layers = layers
        self._words = dict(words)
        self.cache = Path(cache).expanduser()

    @abstractmethod
    def problems(self) -> list[str]:
        """Return a message for every setting with an invalid value."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the settings that the results depend on, besides the words, the model and the layer."""

    @abstractmethod
    def compute(self, lm: LM, weights: FamilyView, layers: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        """Compute the results of the given layers and yield each layer with its arrays to store.

        Args:
            lm: The model.
            weights: The model's weights, as a view that is the same for all families.
            layers: Layers to compute.
        """

    @cached_property
    def lexicon(self) -> Lexicon:
        """The vocabulary with its vectors; the first access checks all settings.

        Raises:
            ConfigError: Some settings have invalid values; the message lists all of them.
        """
        problems = [*index_problems("layers", self.layers), *self.problems()]
        if problems:
            raise ConfigError("\n".join(f"callbacks.{self.kind}.{problem}" for problem in problems))
        return lexicon_from_config(self._words, self.cache)

    def store(self, identity: Identity) -> LayerStore:
        """Return the store of a model's results with these settings."""
        words = hashlib.sha256("\n".join(self.lexicon.words.words).encode()).hexdigest()
        # Two models with equal weights may have different tokenizers, which embed the same words differently.
        settings = {"words": words, "tokenizer": identity.tokenizer, **self.settings()}
        return LayerStore(self.cache, identity, self.kind, settings)

    def missing(self, identity: Identity) -> bool:
        """Return whether a selected layer of a model has no stored result for these settings.

        Raises:
            ConfigError: A setting has an invalid value.
        """
        store = self.store(identity)
        shape = store.shape
        return shape is None or bool(store.missing(self.selected(shape)))

    def selected(self, shape: Mapping[str, int]) -> tuple[int, ...]:
        """Return the layers to analyze.

        Args:
            shape: Numbers of ``layers`` and ``heads`` of the model.

        Raises:
            ConfigError: The model does not have one of the layers.
        """
        return select(self.layers, shape["layers"], f"callbacks.{self.kind}.layers")

    def look(self, lm: LM) -> None:
        """Compute the layers without a stored result, and store each as soon as it is computed."""
        weights, store = view(lm.model), self.store(lm.identity)
        shape = {"layers": weights.layers, "heads": weights.heads}
        selected = self.selected(shape)
        layers = store.missing(selected)
        results = self.compute(lm, weights, layers)
        store.describe(shape)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("left"),
        )  # fmt: skip
        with Progress(*columns, console=Console()) as bar:
            name = f"  {self.title} of {short_name(lm.identity.source)}, layer"
            task = bar.add_task(name, total=len(selected), completed=len(selected) - len(layers))
            for layer, arrays in results:
                store.save(layer, arrays)
                bar.advance(task)
