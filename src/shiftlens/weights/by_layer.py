"""Both views over the layers of a whole model: one layer's weights are held at a time."""

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
"""The pairs of one head, as indices into ``forms``, the lower first."""


@dataclass(frozen=True)
class ModelConcepts:
    """The feed-forward layers of a model as concepts.

    Args:
        words: the vocabulary that the concepts' words index.
        depth: number of layers of the model, looked at or not.
        layers: layer, from 0 -> its concepts.
    """

    words: tuple[str, ...]
    depth: int
    layers: Mapping[int, LayerConcepts]

    def named(self, layer: int, component: int, shown: int = 30) -> list[tuple[str, float]]:
        """The words of a concept with their cosines, largest ``|cosine|`` first.

        Args:
            layer: one of ``layers``.
            component: from 0, the one of largest variance.
            shown: number of words (the paper shows 30).

        Example:
            >>> layer = LayerConcepts(np.eye(1, 2), np.ones(1), np.array([[1, 0]]), np.array([[-1.0, 0.5]]))
            >>> ModelConcepts(("a", "b"), 1, {0: layer}).named(0, 0)
            [('b', -1.0), ('a', 0.5)]
        """
        found = self.layers[layer]
        places, cosines = found.words[component, :shown].tolist(), found.cosine[component, :shown].tolist()
        return [(self.words[place], cosine) for place, cosine in zip(places, cosines, strict=True)]


@dataclass(frozen=True)
class ModelPairs:
    """What the attention heads of a model know.

    Args:
        forms: the distinct lower-case words that pairs index.
        depth: number of layers of the model, looked at or not.
        heads: the heads looked at, from 0.
        layers: layer, from 0 -> the pairs of each of ``heads``.
    """

    forms: tuple[str, ...]
    depth: int
    heads: tuple[int, ...]
    layers: Mapping[int, Sequence[HeadPairs]]

    def named(self, layer: int, head: int) -> list[tuple[str, str]]:
        """The word pairs of a head.

        Args:
            layer: one of ``layers``.
            head: one of ``heads``.

        Example:
            >>> known = ModelPairs(("poem", "write"), 1, (2,), {0: [np.array([[0, 1]])]})
            >>> known.named(0, 2)
            [('poem', 'write')]
        """
        pairs = self.layers[layer][self.heads.index(head)].tolist()
        return [(self.forms[a], self.forms[b]) for a, b in pairs]


def concepts_by_layer(
    lm: LM, layers: Sequence[int], words: Sequence[str], components: int = 300, top_words: int = 50
) -> Iterator[tuple[int, LayerConcepts]]:
    """The concepts of one layer after another, on the device of the weights.

    Args:
        lm: the model.
        layers: which layers, from 0.
        words: words that name concepts.
        components: concepts per layer (300 in the paper); fewer where the layer is smaller.
        top_words: words per concept (50 in the paper).

    Raises:
        SourceError: the family is not known, or the weights cannot be read.
        ValueError: weights that are not finite.
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
    """The word pairs of the heads of one layer after another, on the device of the weights.

    Args:
        lm: the model.
        layers: which layers, from 0.
        heads: which heads of each, from 0.
        words: words that pairs are made of.
        unit: [words, dim] their static word vectors; NaN where a word has none.
        threshold: [words] cosine above which another word could co-occur with each.
        top: words per side and dimension (100 in the paper).

    Raises:
        SourceError: the family is not known, or the weights cannot be read.
        ValueError: weights that are not finite.
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
    """Which layers or heads to look at, in rising order.

    Args:
        wanted: numbers from 0; ``None`` for all.
        count: how many there are.
        what: what they are, ``layers`` or ``heads``, or the key that has them, for the error.

    Raises:
        ConfigError: none or an unknown one is wanted.

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
