"""What the two views of the weights share: words, choice of layers, and results kept layer by layer."""

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
    """A view that takes the weights apart one layer at a time.

    Args:
        layers: which layers, from 0; ``None`` for all.
        words: the configuration group ``words``.
        cache: folder of caches; results go to ``weights`` in it.
    """

    kind: ClassVar[str]
    """Name of the results on disk."""
    title: ClassVar[str]
    """What the progress bar says."""

    def __init__(self, layers: Sequence[int] | None, words: Mapping[str, Any], cache: str | Path) -> None:
        self.layers = layers
        self._words = dict(words)
        self.cache = Path(cache).expanduser()

    @abstractmethod
    def problems(self) -> list[str]:
        """Every setting that cannot be used, in words."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on beside the model and the layer."""

    @abstractmethod
    def compute(self, lm: LM, weights: FamilyView, layers: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        """Some layers one after another, as arrays to keep."""

    @cached_property
    def lexicon(self) -> Lexicon:
        """The words, and with them all settings checked.

        Raises:
            ConfigError: lists what is wrong.
        """
        problems = [*index_problems("layers", self.layers), *self.problems()]
        if problems:
            raise ConfigError("\n".join(f"callbacks.{self.kind}.{problem}" for problem in problems))
        return lexicon_from_config(self._words, self.cache)

    def store(self, identity: Identity) -> LayerStore:
        """Where the results of a model are."""
        words = hashlib.sha256("\n".join(self.lexicon.words.words).encode()).hexdigest()
        # Equal weights may come with another tokenizer, which makes other embeddings of the same words.
        settings = {"words": words, "tokenizer": identity.tokenizer, **self.settings()}
        return LayerStore(self.cache, identity, self.kind, settings)

    def missing(self, identity: Identity) -> bool:
        """Whether a layer of a model has not been looked at with these settings.

        Raises:
            ConfigError: a setting cannot be used.
        """
        store = self.store(identity)
        shape = store.shape
        return shape is None or bool(store.missing(self.selected(shape)))

    def selected(self, shape: Mapping[str, int]) -> tuple[int, ...]:
        """The layers wanted of a model with these numbers of layers and heads."""
        return select(self.layers, shape["layers"], f"callbacks.{self.kind}.layers")

    def look(self, lm: LM) -> None:
        """Look at the layers that are missing; each is kept as soon as it is done."""
        weights, store = view(lm.model), self.store(lm.identity)
        shape = {"layers": weights.layers, "heads": weights.heads}
        selected = self.selected(shape)
        layers = store.missing(selected)
        found = self.compute(lm, weights, layers)
        store.describe(shape)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("left"),
        )  # fmt: skip
        with Progress(*columns, console=Console()) as bar:
            name = f"  {self.title} of {short_name(lm.identity.source)}, layer"
            task = bar.add_task(name, total=len(selected), completed=len(selected) - len(layers))
            for layer, arrays in found:
                store.save(layer, arrays)
                bar.advance(task)
