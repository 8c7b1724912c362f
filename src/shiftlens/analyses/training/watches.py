"""Measures what changed in the weights since the first look: concepts of feed-forward layers, word pairs of heads.

Each layer's weights are hashed; a layer with the same weights as at the first look is not analyzed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shiftlens.analyses.concepts.rotation_findings import rotation_findings, rotation_tables
from shiftlens.analyses.word_pairs.compute import KINDS
from shiftlens.analyses.word_pairs.section import pairs_results
from shiftlens.models.families import FamilyView, view
from shiftlens.models.loading import LM
from shiftlens.results.section import Section
from shiftlens.weights import LayerConcepts, compare_concepts, random_rotation
from shiftlens.weights.by_layer import HeadPairs, ModelConcepts, ModelPairs, concepts_by_layer, pairs_by_layer
from shiftlens.weights.head_pairs import lexicon as pair_lexicon
from shiftlens.words import Lexicon

DRAWS = 100
"""Number of random rotations with which the concepts are compared."""


def print_of(weight: Tensor) -> str:
    """Return the hash of the bytes of a matrix.

    Example:
        >>> print_of(torch.ones(2)) == print_of(torch.ones(2)), print_of(torch.ones(2)) == print_of(torch.zeros(2))
        (True, False)
    """
    return hashlib.sha256(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()


@dataclass
class ConceptWatch:
    """Compares the concepts of some feed-forward layers with those of the first look.

    Args:
        layers: Layers to analyze, from 0.
        components: Number of concepts per layer.
        top_words: Number of words of a concept.
        lexicon: Words that name concepts.
        first: Concepts of each layer at the first look.
        prints: Hashes of the weights at the first look: of each layer, and of the embeddings of ``words``.
        last: Concepts of each layer at the latest look.
        depth: Number of layers of the model.
    """

    layers: Sequence[int]
    components: int
    top_words: int
    lexicon: Lexicon
    first: dict[int, LayerConcepts] = field(default_factory=dict)
    prints: dict[str, str] = field(default_factory=dict)
    last: dict[int, LayerConcepts] = field(default_factory=dict)
    depth: int = field(default=0, init=False)

    def look(self, lm: LM) -> dict[int, tuple[float, float, float]]:
        """Measure how far each layer's concepts rotated since the first look.

        Args:
            lm: The model at this step.

        Returns:
            For each layer the numbers for :func:`shiftlens.analyses.training.curves.rotation_points`.
        """
        weights = view(lm.model)
        self.depth = weights.layers
        prints = {str(layer): print_of(weights.down(layer)) for layer in self.layers}
        prints["words"] = "".join(map(print_of, weights.output_embedding.blocks()))
        self.prints = self.prints or prints
        same_words = prints["words"] == self.prints["words"]
        same = [layer for layer in self.layers if prints[str(layer)] == self.prints[str(layer)]]
        again = [layer for layer in self.layers if layer not in self.first or not same_words or layer not in same]
        names = self.lexicon.words.words
        made = dict(concepts_by_layer(lm, again, names, self.components, self.top_words)) if again else {}
        self.first = self.first or made
        self.last = self.first | made
        return {layer: self._turned(layer, layer in same) for layer in self.layers}

    def _turned(self, layer: int, same: bool) -> tuple[float, float, float]:
        before, now = self.first[layer], self.last[layer]
        if before is now:
            return 0.0, 1.0, 0.0
        turned = compare_concepts(before, now)
        left = float(turned.left.sum(axis=1).mean())
        if same:  # only the words changed: the components are equal, and any angle would be a rounding error
            return 0.0, 1.0, left
        cosine = float(turned.cosine.astype(float).clip(max=1.0).mean())
        return float(np.degrees(turned.angles).mean()), cosine, left

    def conclusions(self, seed: int) -> Section | None:
        """Return tables ``rotation`` and ``rotation_layers`` with their findings; ``None`` before the first look.

        Args:
            seed: Random seed for the bootstrap and the random rotations.
        """
        if not self.last:
            return None
        names = self.lexicon.words.words
        base, tuned = (ModelConcepts(names, self.depth, layers) for layers in (self.first, self.last))
        turned = {layer: compare_concepts(first, self.last[layer]) for layer, first in self.first.items()}
        k, width = next(iter(self.first.values())).components.shape
        null = random_rotation(width, k, DRAWS, seed)
        concepts, layers = rotation_tables(base, tuned, turned, null)
        return Section(
            rotation_findings(layers, self.depth, null, seed), {"rotation": concepts, "rotation_layers": layers}
        )

    def state(self) -> dict[str, Any]:
        """Return the first look as plain values and tensors."""
        fields = {layer: {k: torch.from_numpy(v) for k, v in vars(f).items()} for layer, f in self.first.items()}
        return {"prints": dict(self.prints), "first": fields}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the first look from the values of :meth:`state`."""
        self.prints = dict(state["prints"])
        self.first = {
            int(layer): LayerConcepts(**{name: value.numpy() for name, value in fields.items()})
            for layer, fields in state["first"].items()
        }


@dataclass
class PairWatch:
    """Compares the word pairs of the heads of some layers with those of the first look.

    Args:
        layers: Layers to analyze, from 0.
        top: Number of words per side and dimension.
        lexicon: Words of the pairs, with their vectors.
        first: Pairs of each head of each layer at the first look.
        prints: Hashes of the weights at the first look: of each layer, and of the embeddings of ``words``.
        depth: Number of layers of the model.
        heads: Number of heads of each layer.
    """

    layers: Sequence[int]
    top: int
    lexicon: Lexicon
    first: dict[int, Sequence[HeadPairs]] = field(default_factory=dict)
    prints: dict[str, str] = field(default_factory=dict)
    depth: int = field(default=0, init=False)
    heads: int = field(default=0, init=False)
    _latest: Section | None = field(default=None, init=False)

    def section(self, lm: LM, seed: int) -> Section:
        """Take a look, and compare the word pairs of the first look (as base) with the present ones (as tuned).

        Args:
            lm: The model at this step.
            seed: Random seed for the bootstrap and the permutations.
        """
        weights = view(lm.model)
        self.depth, self.heads = weights.layers, weights.heads
        prints = {str(layer): self._print(weights, layer) for layer in self.layers}
        prints["words"] = "".join(map(print_of, weights.input_embedding.blocks()))
        self.prints = self.prints or prints
        same_words = prints["words"] == self.prints["words"]
        again = [
            layer
            for layer in self.layers
            if layer not in self.first or not same_words or prints[str(layer)] != self.prints[str(layer)]
        ]
        heads, lexicon = tuple(range(weights.heads)), self.lexicon
        names = lexicon.words.words
        made: dict[int, Sequence[HeadPairs]] = {}
        if again:
            made = dict(pairs_by_layer(lm, again, heads, names, lexicon.unit, lexicon.threshold, self.top))
        self.first = self.first or made
        forms = pair_lexicon(names, lexicon.unit, lexicon.threshold).forms
        models = {
            role: ModelPairs(forms, weights.layers, heads, pairs)
            for role, pairs in (("base", self.first), ("tuned", self.first | made))
        }
        self._latest = Section(*pairs_results(models, self._verbs(), seed))
        return self._latest

    def conclusions(self, seed: int) -> Section | None:
        """Return tables ``verb_shares`` and ``head_pairs`` with findings of the latest look; ``None`` before one.

        Args:
            seed: Not used; the findings are those of :meth:`section`.
        """
        if self._latest is None:
            return None
        tables = {name: self._latest.tables[name] for name in ("verb_shares", "head_pairs")}
        return Section(self._latest.findings, tables)

    def _verbs(self) -> dict[str, dict[str, list[str]]]:
        words, groups = self.lexicon.words.words, (self.lexicon.instruction, self.lexicon.general)
        return {
            kind: {verb: [words[index].lower() for index in indices.tolist()] for verb, indices in group.items()}
            for kind, group in zip(KINDS, groups, strict=True)
        }

    @staticmethod
    def _print(weights: FamilyView, layer: int) -> str:
        maps = weights.query_key(layer)
        return print_of(maps.query) + print_of(maps.key)

    def state(self) -> dict[str, Any]:
        """Return the first look as plain values and tensors."""
        fields = {
            layer: [torch.from_numpy(pairs.astype(np.int32)) for pairs in heads]
            for layer, heads in self.first.items()
        }
        return {"prints": dict(self.prints), "first": fields}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the first look from the values of :meth:`state`."""
        self.prints = dict(state["prints"])
        self.first = {
            int(layer): [pairs.numpy().astype(np.int64) for pairs in heads]
            for layer, heads in state["first"].items()
        }
