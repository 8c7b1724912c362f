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
from shiftlens.models.families import FamilyView, view
from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM
from shiftlens.models.sources import short_name
from shiftlens.support.setting_rules import SEED, Indices, Rule, refuse, setting_problems
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
    rules: ClassVar[Mapping[str, Rule]] = {"layers": Indices(), "seed": SEED}
    """Rules of the settings."""

    def __init__(self, layers: Sequence[int] | None, words: Mapping[str, Any], cache: str | Path) -> None:
        self.layers = layers
        self._words = dict(words)
        self.cache = Path(cache).expanduser()

    def problems(self) -> list[str]:
        """Check the settings; return one line for each that cannot be used."""
        return setting_problems(vars(self), self.rules, f"callbacks.{self.kind}.")

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Give every setting that the numbers depend on, beside the model and the layer."""

    @abstractmethod
    def compute(self, lm: LM, weights: FamilyView, layers: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        """Take some layers apart, one after another; yield each with its arrays to keep."""

    @cached_property
    def lexicon(self) -> Lexicon:
        """Words in which the results are told; read once the settings have been checked.

        Raises:
            ConfigError: Lists every setting that cannot be used.
        """
        refuse(self.problems())
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
        """Choose the layers to look at in a model with these numbers of layers and heads."""
        return select(self.layers, shape["layers"], f"callbacks.{self.kind}.layers")

    def look(self, lm: LM) -> None:
        """Look at the layers that are missing; keep each as soon as it is done."""
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
