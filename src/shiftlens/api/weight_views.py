"""Analyzes the weights from Python: concepts, their rotation, and word pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shiftlens.models.families import view
from shiftlens.models.loading import LM
from shiftlens.support.cache_path import cache_dir
from shiftlens.weights import Rotation, compare_concepts
from shiftlens.weights.by_layer import ModelConcepts, ModelPairs, concepts_by_layer, pairs_by_layer, select
from shiftlens.words import (
    Words,
    cooccurrence_threshold,
    frequent_words,
    lexicon_from_config,
    load_vectors,
    read_words,
)
from shiftlens.words.vectors import FREQUENT

Vocabulary = Sequence[str] | Words | str | Path | None


def concepts(
    lm: LM,
    layers: Sequence[int] | None = None,
    words: Vocabulary = None,
    components: int = 300,
    top_words: int = 50,
) -> ModelConcepts:
    """Compute the concepts of the feed-forward layers: principal components named by words (paper, section 4).

    Args:
        lm: Model from :func:`shiftlens.load`.
        layers: Layers to analyze, from 0; ``None`` for all.
        words: Words that name concepts: a list, a :class:`~shiftlens.words.Words`, a file of words and
            frequencies, or ``None`` for the default vocabulary of 20,000 frequent words.
        components: Number of concepts per layer (300 in the paper); fewer where the layer is smaller.
        top_words: Number of words per concept (50 in the paper); fewer where there are fewer words.

    Returns:
        For each layer the component vectors, their shares of the variance, and ranked words with their cosines.

    Raises:
        ConfigError: The model does not have one of the layers, or a word file has faults.
        SourceError: The model's family is not known, or its weights are quantized.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        >>> from shiftlens.models.identity import Identity
        >>> core = Tokenizer(models.WordLevel({" poem": 0, " write": 1}))
        >>> config = LlamaConfig(vocab_size=2, hidden_size=8, intermediate_size=12, num_hidden_layers=3,
        ...                      num_attention_heads=2)
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
        >>> lm = LM(LlamaForCausalLM(config), tokenizer, "none", Identity("tiny", "", "", "float32"))
        >>> known = concepts(lm, layers=[0, 2], words=["write", "poem"], components=4)
        >>> known.layers[2].components.shape, sorted(word for word, _ in known.named(2, component=0))
        ((4, 8), ['poem', 'write'])
    """
    weights = view(lm.model)
    chosen = select(layers, weights.layers, "layers")
    vocabulary = _vocabulary(words).words
    by_layer = dict(concepts_by_layer(lm, chosen, vocabulary, components, top_words))
    return ModelConcepts(vocabulary, weights.layers, by_layer)


def rotation(base: ModelConcepts, tuned: ModelConcepts) -> dict[int, Rotation]:
    """Measure how far tuning rotated the concepts of each layer.

    Args:
        base: Concepts of the base model, from :func:`concepts`.
        tuned: Concepts of the tuned model, from :func:`concepts`.

    Returns:
        For each layer that both models have: the principal angles, the one-to-one matching of concepts, and the
        words that left and entered each concept. :func:`shiftlens.weights.random_rotation` gives the same for
        unrelated models.

    Raises:
        ValueError: The concepts are named by different words, or differ in number or width.

    Example:
        >>> from shiftlens.weights import LayerConcepts
        >>> layer = LayerConcepts(np.eye(2, 3), np.ones(2), np.array([[0], [1]]), np.ones((2, 1)))
        >>> base = ModelConcepts(("poem", "write"), 1, {0: layer})
        >>> rotation(base, base)[0].angles.tolist()
        [0.0, 0.0]
    """
    if base.words != tuned.words:
        raise ValueError(
            f"base and tuned must be named by the same words, got {len(base.words)} and {len(tuned.words)} words "
            "that differ"
        )
    return {
        layer: compare_concepts(layer_concepts, tuned.layers[layer])
        for layer, layer_concepts in base.layers.items()
        if layer in tuned.layers
    }


def word_pairs(
    lm: LM,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    words: Vocabulary = None,
    vectors: str | Path = "glove",
    top: int = 100,
) -> ModelPairs:
    r"""Compute the word pairs that each attention head relates to each other (paper, section 4).

    Args:
        lm: Model from :func:`shiftlens.load`.
        layers: Layers to analyze, from 0; ``None`` for all.
        heads: Heads of each layer to analyze, from 0; ``None`` for all.
        words: Words of the pairs, as for :func:`concepts`. Whether two words could co-occur is decided by
            comparison with the 3,000 most frequent words: of the same vocabulary, or of English for a plain list.
        vectors: Static word vectors that decide which words could co-occur: ``glove``, or a file.
        top: Number of words per side and dimension (100 in the paper).

    Returns:
        The pairs of each head, in lower case and without order.

    Raises:
        ConfigError: The model does not have one of the layers or heads, or a file has faults.
        SourceError: The model's family is not known, its weights are quantized, or the vectors cannot be fetched.

    Example:
        >>> import tempfile
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        >>> from shiftlens.models.identity import Identity
        >>> core = Tokenizer(models.WordLevel({" poem": 0, " write": 1}))
        >>> config = LlamaConfig(vocab_size=2, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
        >>> lm = LM(LlamaForCausalLM(config), tokenizer, "none", Identity("tiny", "", "", "float32"))
        >>> vectors = Path(tempfile.mkdtemp()) / "mine.txt"
        >>> _ = vectors.write_text("the 1 0\nof 0 1\nin -1 0\nto 0 -1\nwrite 1 1\npoem 1.1 1")
        >>> known = word_pairs(lm, heads=[1], words=["write", "poem"], vectors=vectors, top=1)
        >>> known.forms, known.heads, set(known.named(0, 1)) <= {("write", "poem")}
        (('write', 'poem'), (1,), True)
    """
    weights = view(lm.model)
    chosen_layers, chosen_heads = select(layers, weights.layers, "layers"), select(heads, weights.heads, "heads")
    vocabulary = _vocabulary(words)
    word_vectors = load_vectors(vectors, cache_dir())
    # A plain list has no frequencies, and its order need not be that of frequency: use frequent English words.
    has_frequencies = isinstance(words, (Words, str, Path)) or words is None
    frequent = (vocabulary if has_frequencies else frequent_words(FREQUENT)).first(FREQUENT).words
    threshold = cooccurrence_threshold(word_vectors, vocabulary.words, frequent)
    unit = word_vectors.unit(vocabulary.words)
    pairs = pairs_by_layer(lm, chosen_layers, chosen_heads, vocabulary.words, unit, threshold, top)
    forms = tuple(dict.fromkeys(word.lower() for word in vocabulary.words))
    return ModelPairs(forms, weights.layers, chosen_heads, dict(pairs))


def _vocabulary(words: Vocabulary) -> Words:
    if words is None:
        return lexicon_from_config({}, cache_dir()).words
    if isinstance(words, Words):
        return words
    if isinstance(words, (str, Path)):
        return read_words(words)
    return Words(tuple(words), np.zeros(len(words)))
