"""The weight callbacks with small settings."""

from __future__ import annotations

from helpers.plain_weights import COMPONENTS, SHOWN, TOP, TOP_WORDS
from shiftlens.callbacks import Concepts, WordPairs


def concepts_view(words, cache, **settings):
    values = {"components": COMPONENTS, "top_words": TOP_WORDS, "shown": SHOWN, **settings}
    return Concepts(words, {"name": "lexical", "alpha": 0.2, "seed": 0}, cache, **values)


def pairs_view(words, cache, **settings):
    return WordPairs(words, cache, **{"top": TOP, **settings})
