"""Attention heads as word pairs, base against tuned (paper, section on self-attention)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from shiftlens.analyses.word_pairs.section import pairs_section
from shiftlens.callbacks.weight_view import WeightView
from shiftlens.models.families import FamilyView
from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM
from shiftlens.results.section import Section
from shiftlens.support.setting_rules import Indices, Number
from shiftlens.weights.by_layer import HeadPairs, ModelPairs, pairs_by_layer, select
from shiftlens.weights.head_pairs import lexicon
from shiftlens.weights.store import Arrays


class WordPairs(WeightView):
    """The word pairs of each attention head, and the verbs in the pairs that heads gained.

    Args:
        layers: Layers to look at, from 0; ``None`` for all.
        heads: Heads to look at in each layer, from 0; ``None`` for all.
        top: Words per side and dimension (100 in the paper).
        words: Configuration group ``words``.
        cache: Folder of caches.
        seed: Random seed for the bootstrap intervals and the permutations.
    """

    kind = "word_pairs"
    title = "Word pairs"
    rules: ClassVar = {**WeightView.rules, "heads": Indices(), "top": Number(1)}

    def __init__(
        self,
        words: Mapping[str, Any],
        cache: str | Path,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        top: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__(layers, words, cache)
        self.heads, self.top, self.seed = heads, top, seed

    def settings(self) -> dict[str, Any]:
        """Give every setting that the numbers depend on, beside the model and the layer."""
        return {"heads": self.heads, "top": self.top, "vectors": self._vectors}

    @cached_property
    def _vectors(self) -> str:
        """Hash of the word vectors, whatever their source."""
        vectors = self.lexicon.vectors
        hashed = hashlib.sha256("\n".join(vectors.words).encode())
        hashed.update(np.ascontiguousarray(vectors.vectors).data)
        return hashed.hexdigest()

    def compute(self, lm: LM, weights: FamilyView, layers: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        """Find the pairs of some layers; yield each layer with all of its pairs and their number per head."""
        words, heads = self.lexicon, self._selected_heads(weights.heads)
        found = pairs_by_layer(lm, layers, heads, words.words.words, words.unit, words.threshold, self.top)
        return ((layer, _packed(pairs)) for layer, pairs in found)

    def load(self, identity: Identity) -> ModelPairs:
        """Load the word pairs of a model that was looked at."""
        store, words = self.store(identity), self.lexicon
        shape = store.shape
        assert shape is not None, "the model was looked at"
        forms = lexicon(words.words.words, words.unit, words.threshold).forms
        layers = {layer: _unpacked(store.load(layer)) for layer in self.selected(shape)}
        return ModelPairs(forms, shape["layers"], self._selected_heads(shape["heads"]), layers)

    def section(self, identities: Mapping[str, Identity]) -> Section:
        """Compare base and tuned by their word pairs, and instruction verbs with general ones by their gain."""
        words = self.lexicon.words.words
        verbs = {
            kind: {verb: [words[place].lower() for place in places.tolist()] for verb, places in group.items()}
            for kind, group in (("instruction", self.lexicon.instruction), ("general", self.lexicon.general))
        }
        return pairs_section(
            {role: self.load(identity) for role, identity in identities.items()}, verbs, self.seed
        )

    def _selected_heads(self, count: int) -> tuple[int, ...]:
        return select(self.heads, count, f"callbacks.{self.kind}.heads")


def _packed(pairs: Sequence[HeadPairs]) -> Arrays:
    return {"pairs": np.concatenate(pairs).astype(np.int32), "count": np.array([len(each) for each in pairs])}


def _unpacked(arrays: Arrays) -> list[HeadPairs]:
    return np.split(arrays["pairs"].astype(np.int64), np.cumsum(arrays["count"])[:-1])
