"""Compares the word pairs of the base and tuned attention heads (paper, section on self-attention)."""

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
    """Computes the word pairs of each attention head and tests which verbs gained pairs by tuning.

    Args:
        words: Configuration group ``words``.
        cache: Folder of caches.
        layers: Layers to analyze, from 0; ``None`` for all.
        heads: Heads of each layer to analyze, from 0; ``None`` for all.
        top: Number of words per side and dimension (100 in the paper).
        seed: Random seed for the bootstrap and the permutations.
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
        """Content hash of the word vectors."""
        vectors = self.lexicon.vectors
        hashed = hashlib.sha256("\n".join(vectors.words).encode())
        hashed.update(np.ascontiguousarray(vectors.vectors).data)
        return hashed.hexdigest()

    def compute(self, lm: LM, weights: FamilyView, layers: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        """Compute the word pairs of the given layers; return each layer with its pairs and counts per head."""
        words, heads = self.lexicon, self._selected_heads(weights.heads)
        by_layer = pairs_by_layer(lm, layers, heads, words.words.words, words.unit, words.threshold, self.top)
        return ((layer, _packed(pairs)) for layer, pairs in by_layer)

    def load(self, identity: Identity) -> ModelPairs:
        """Load the stored word pairs of a model."""
        store, words = self.store(identity), self.lexicon
        shape = store.shape
        assert shape is not None, "the model has no stored word pairs"
        forms = lexicon(words.words.words, words.unit, words.threshold).forms
        layers = {layer: _unpacked(store.load(layer)) for layer in self.selected(shape)}
        return ModelPairs(forms, shape["layers"], self._selected_heads(shape["heads"]), layers)

    def section(self, identities: Mapping[str, Identity]) -> Section:
        """Return the section with all pairs, the pairs of verbs, and the test of instruction verbs.

        The test asks whether instruction verbs gained more pairs than general verbs.
        """
        words = self.lexicon.words.words
        verbs = {
            kind: {verb: [words[index].lower() for index in indices.tolist()] for verb, indices in group.items()}
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
