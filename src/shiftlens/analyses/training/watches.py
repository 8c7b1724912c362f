"""What changed in the weights since a first look: concepts of feed-forward layers, word pairs of heads.

What a layer is made of is hashed; a layer whose weights are those of the first look is not taken apart again.
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
"""Random rotations that the concepts are held against."""


def print_of(weight: Tensor) -> str:
    """Hash of a matrix by its bytes.

    Example:
        >>> print_of(torch.ones(2)) == print_of(torch.ones(2)), print_of(torch.ones(2)) == print_of(torch.zeros(2))
        (True, False)
    """
    return hashlib.sha256(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()


@dataclass
class ConceptWatch:
    """Concepts of some feed-forward layers, held against those of the first look.

    Args:
        layers: which layers, from 0.
        components: concepts per layer.
        top_words: words that make up a concept.
        lexicon: the words.
        first: layer -> its concepts at the first look.
        prints: what those were made of: ``words`` and each layer.
        last: layer -> its concepts at the latest look.
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
        """How far each layer turned, see :func:`shiftlens.analyses.training.curves.rotation_points`."""
        weights = view(lm.model)
        self.depth = weights.layers
        found = {str(layer): print_of(weights.down(layer)) for layer in self.layers}
        found["words"] = "".join(map(print_of, weights.output_embedding.blocks()))
        self.prints = self.prints or found
        words = found["words"] == self.prints["words"]
        same = [layer for layer in self.layers if found[str(layer)] == self.prints[str(layer)]]
        again = [layer for layer in self.layers if layer not in self.first or not words or layer not in same]
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
        if same:  # only the words did; equal matrices have equal components, and rounding is no angle
            return 0.0, 1.0, left
        cosine = float(turned.cosine.astype(float).clip(max=1.0).mean())
        return float(np.degrees(turned.angles).mean()), cosine, left

    def conclusions(self, seed: int) -> Section | None:
        """Tables ``rotation`` and ``rotation_layers`` and their findings; ``None`` before a look."""
        if not self.last:
            return None
        names = self.lexicon.words.words
        base, tuned = (ModelConcepts(names, self.depth, layers) for layers in (self.first, self.last))
        turned = {layer: compare_concepts(found, self.last[layer]) for layer, found in self.first.items()}
        k, width = next(iter(self.first.values())).components.shape
        null = random_rotation(width, k, DRAWS, seed)
        concepts, layers = rotation_tables(base, tuned, turned, null)
        return Section(
            rotation_findings(layers, self.depth, null, seed), {"rotation": concepts, "rotation_layers": layers}
        )

    def state(self) -> dict[str, Any]:
        """The first look as plain values and tensors."""
        fields = {layer: {k: torch.from_numpy(v) for k, v in vars(f).items()} for layer, f in self.first.items()}
        return {"prints": dict(self.prints), "first": fields}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a kept first look."""
        self.prints = dict(state["prints"])
        self.first = {
            int(layer): LayerConcepts(**{name: value.numpy() for name, value in fields.items()})
            for layer, fields in state["first"].items()
        }


@dataclass
class PairWatch:
    """Word pairs of the heads of some layers, held against those of the first look.

    Args:
        layers: which layers, from 0.
        top: words per side and dimension.
        lexicon: the words, with their vectors.
        first: layer -> the pairs of each head at the first look.
        prints: what those were made of: ``words`` and each layer.
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
        """A look, and the word pairs of the first look against those of now, as base against tuned."""
        weights = view(lm.model)
        self.depth, self.heads = weights.layers, weights.heads
        found = {str(layer): self._print(weights, layer) for layer in self.layers}
        found["words"] = "".join(map(print_of, weights.input_embedding.blocks()))
        self.prints = self.prints or found
        words = found["words"] == self.prints["words"]
        again = [
            layer
            for layer in self.layers
            if layer not in self.first or not words or found[str(layer)] != self.prints[str(layer)]
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
        """Tables ``verb_shares`` and ``head_pairs`` and their findings, latest look; ``None`` before one."""
        if self._latest is None:
            return None
        tables = {name: self._latest.tables[name] for name in ("verb_shares", "head_pairs")}
        return Section(self._latest.findings, tables)

    def _verbs(self) -> dict[str, dict[str, list[str]]]:
        words, groups = self.lexicon.words.words, (self.lexicon.instruction, self.lexicon.general)
        return {
            kind: {verb: [words[place].lower() for place in places.tolist()] for verb, places in group.items()}
            for kind, group in zip(KINDS, groups, strict=True)
        }

    @staticmethod
    def _print(weights: FamilyView, layer: int) -> str:
        maps = weights.query_key(layer)
        return print_of(maps.query) + print_of(maps.key)

    def state(self) -> dict[str, Any]:
        """The first look as plain values and tensors."""
        fields = {
            layer: [torch.from_numpy(pairs.astype(np.int32)) for pairs in heads]
            for layer, heads in self.first.items()
        }
        return {"prints": dict(self.prints), "first": fields}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a kept first look."""
        self.prints = dict(state["prints"])
        self.first = {
            int(layer): [pairs.numpy().astype(np.int64) for pairs in heads]
            for layer, heads in state["first"].items()
        }
