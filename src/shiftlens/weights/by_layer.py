"""Computes the concepts and word pairs of a whole model, with the weights of one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from shiftlens.errors import ConfigError
from shiftlens.models.families import view
from shiftlens.models.loading import LM
from shiftlens.weights.head_pairs import layer_knowledge, lexicon
from shiftlens.weights.layer_concepts import LayerConcepts, layer_concepts
from shiftlens.words import word_embeddings

HeadPairs = Int64[np.ndarray, "_ 2"]
"""Word pairs of one head: indices into ``forms``, the lower one first."""


@dataclass(frozen=True)
class ModelConcepts:
    """Concepts of the feed-forward layers of a model.

    Args:
        words: Vocabulary into which the concepts' word indices point.
        depth: Number of layers of the model, whether analysed or not.
        layers: Layer, counted from 0 -> its concepts.
    """

    words: tuple[str, ...]
    depth: int
    layers: Mapping[int, LayerConcepts]

    def named(self, layer: int, component: int, shown: int = 30) -> list[tuple[str, float]]:
        """Return the words of a concept with their cosines, largest ``|cosine|`` first.

        Args:
            layer: Layer, one of ``layers``.
            component: Index of the concept; 0 is the one with the largest variance.
            shown: Largest number of words to return (the paper shows 30).

        Example:
            >>> layer = LayerConcepts(np.eye(1, 2), np.ones(1), np.array([[1, 0]]), np.array([[-1.0, 0.5]]))
            >>> ModelConcepts(("a", "b"), 1, {0: layer}).named(0, 0)
            [('b', -1.0), ('a', 0.5)]
        """
        concepts = self.layers[layer]
        indices, cosines = concepts.words[component, :shown].tolist(), concepts.cosine[component, :shown].tolist()
        return [(self.words[index], cosine) for index, cosine in zip(indices, cosines, strict=True)]


@dataclass(frozen=True)
class ModelPairs:
    """Word pairs of the attention heads of a model.

    Args:
        forms: Distinct lower-case words into which the pairs' indices point.
        depth: Number of layers of the model, whether analysed or not.
        heads: Analysed heads, counted from 0.
        layers: Layer, counted from 0 -> the pairs of each of ``heads``.
    """

    forms: tuple[str, ...]
    depth: int
    heads: tuple[int, ...]
    layers: Mapping[int, Sequence[HeadPairs]]

    def named(self, layer: int, head: int) -> list[tuple[str, str]]:
        """Return the word pairs of a head.

        Args:
            layer: Layer, one of ``layers``.
            head: Head, one of ``heads``.

        Example:
            >>> pairs = ModelPairs(("poem", "write"), 1, (2,), {0: [np.array([[0, 1]])]})
            >>> pairs.named(0, 2)
            [('poem', 'write')]
        """
        pairs = self.layers[layer][self.heads.index(head)].tolist()
        return [(self.forms[a], self.forms[b]) for a, b in pairs]


def concepts_by_layer(
    lm: LM, layers: Sequence[int], words: Sequence[str], components: int = 300, top_words: int = 50
) -> Iterator[tuple[int, LayerConcepts]]:
    """Yield each layer with its concepts, computed on the device of the weights.

    Args:
        lm: Model to analyse.
        layers: Layers to analyse, counted from 0.
        words: Words that name concepts.
        components: Number of concepts per layer (300 in the paper); fewer if the layer is smaller.
        top_words: Number of words per concept (50 in the paper).

    Raises:
        SourceError: If the model's family is unknown, or its weights cannot be read.
        ValueError: If a weight is not finite.
    """
    weights = view(lm.model)
    output = word_embeddings(lm.tokenizer, words, weights.output_embedding)
    for layer in layers:
        yield layer, layer_concepts(weights.down(layer).to(output.device), output, components, top_words)


def pairs_by_layer(
    lm: LM,
    layers: Sequence[int],
    heads: Sequence[int],
    words: Sequence[str],
    unit: Float[np.ndarray, "words dim"],
    threshold: Float[np.ndarray, " words"],
    top: int = 100,
) -> Iterator[tuple[int, list[HeadPairs]]]:
    """Yield each layer with the word pairs of its heads, computed on the device of the weights.

    Args:
        lm: Model to analyse.
        layers: Layers to analyse, counted from 0.
        heads: Heads to analyse in each layer, counted from 0.
        words: Words from which pairs are made.
        unit: [words, dim] static word vectors of these words; NaN for a word without a vector.
        threshold: [words] cosine above which another word counts as possibly co-occurring with each word.
        top: Number of words per side and dimension (100 in the paper).

    Raises:
        SourceError: If the model's family is unknown, or its weights cannot be read.
        ValueError: If a weight is not finite.
    """
    weights = view(lm.model)
    embeddings = word_embeddings(lm.tokenizer, words, weights.input_embedding)
    prepared = lexicon(words, unit, threshold, embeddings.device)
    chosen = list(heads)
    for layer in layers:
        maps = weights.query_key(layer)
        query, key = (side[chosen].to(embeddings.device) for side in (maps.query, maps.key))
        yield layer, layer_knowledge(embeddings, query, key, prepared, top)


def select(wanted: Sequence[int] | None, count: int, what: str) -> tuple[int, ...]:
    """Check a selection of layers or heads, and return it in ascending order without repetition.

    Args:
        wanted: Indices, counted from 0; ``None`` selects all.
        count: Number of layers or heads of the model.
        what: Name for the error message: ``layers``, ``heads``, or a configuration key that ends in one of these.

    Raises:
        ConfigError: If the selection is empty, or an index is out of range.

    Example:
        >>> select([2, 0], 3, "layers"), select(None, 3, "layers")
        ((0, 2), (0, 1, 2))
        >>> select([3], 3, "layers")
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: layers=[3]: the model has layers 0 to 2; name some of them, or null for all
    """
    if wanted is None:
        return tuple(range(count))
    chosen = tuple(sorted(set(wanted)))
    if not chosen or not 0 <= chosen[0] <= chosen[-1] < count:
        raise ConfigError(
            f"{what}={list(wanted)}: the model has {what.rpartition('.')[2]} 0 to {count - 1}; "
            "name some of them, or null for all"
        )
    return chosen
