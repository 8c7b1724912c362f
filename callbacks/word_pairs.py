"""Attention heads as word pairs, base against tuned (paper, section on self-attention)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from shiftlens.analyses.word_pairs.section import pairs_section
from shiftlens.callbacks.weight_view import WeightView
from shiftlens.models.families import FamilyView
from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM
from shiftlens.results.section import Section
from shiftlens.support.number_rules import COUNT, index_problems, is_count
from shiftlens.weights.by_layer import HeadPairs, ModelPairs, pairs_by_layer, select
from shiftlens.weights.head_pairs import lexicon
from shiftlens.weights.store import Arrays


class WordPairs(WeightView):
    """The word pairs that each head knows, and which verbs heads learned.

    Args:
        layers: which layers, from 0; ``None`` for all.
        heads: which heads of each, from 0; ``None`` for all.
        top: words per side and dimension (100 in the paper).
        words: the configuration group ``words``.
        cache: folder of caches.
        seed: of the bootstrap and of permutations.
    """

    kind = "word_pairs"
    title = "Word pairs"

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

    def problems(self) -> list[str]:
        """Every setting that cannot be used, in words."""
        found = [] if is_count(self.top) else [f"top={self.top}: {COUNT}"]
        return found + index_problems("heads", self.heads)

    def settings(self) -> dict[str, Any]:
        """What the numbers depend on beside the model and the layer."""
        return {"heads": self.heads, "top": self.top, "vectors": self._vectors}

    @cached_property
    def _vectors(self) -> str:
        """Hash of the word vectors, wherever they came from."""
        vectors = self.lexicon.vectors
        hashed = hashlib.sha256("\n".join(vectors.words).encode())
        hashed.update(np.ascontiguousarray(vectors.vectors).data)
        return hashed.hexdigest()

    def compute(self, lm: LM, weights: FamilyView, layers: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        """Some layers one after another, as arrays to keep: all pairs, and how many each head has."""
        words, heads = self.lexicon, self._selected_heads(weights.heads)
        found = pairs_by_layer(lm, layers, heads, words.words.words, words.unit, words.threshold, self.top)
        return ((layer, _packed(pairs)) for layer, pairs in found)

    def load(self, identity: Identity) -> ModelPairs:
        """The word pairs of a model that was looked at."""
        store, words = self.store(identity), self.lexicon
        shape = store.shape
        assert shape is not None, "the model was looked at"
        forms = lexicon(words.words.words, words.unit, words.threshold).forms
        layers = {layer: _unpacked(store.load(layer)) for layer in self.selected(shape)}
        return ModelPairs(forms, shape["layers"], self._selected_heads(shape["heads"]), layers)

    def section(self, identities: Mapping[str, Identity]) -> Section:
        """Word pairs, those with verbs, and whether instruction verbs gained more than general ones."""
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
