"""Loads the vocabulary, its embeddings and static vectors, and the verb lists that describe concepts and pairs."""

from shiftlens.words.build import build_vocabulary, count_words
from shiftlens.words.embeddings import word_embeddings, word_tokens
from shiftlens.words.lexicon import Lexicon, lexicon_from_config
from shiftlens.words.morphology import lemma, parts_of_speech, verb_forms
from shiftlens.words.vectors import Vectors, cooccurrence_threshold, load_vectors
from shiftlens.words.verbs import frequent_verbs, general_verbs, instruction_verbs, read_verbs, verb_indices
from shiftlens.words.vocabulary import Words, frequent_words, read_words, write_words

__all__ = [
    "Lexicon",
    "Vectors",
    "Words",
    "build_vocabulary",
    "cooccurrence_threshold",
    "count_words",
    "frequent_verbs",
    "frequent_words",
    "general_verbs",
    "instruction_verbs",
    "lemma",
    "lexicon_from_config",
    "load_vectors",
    "parts_of_speech",
    "read_verbs",
    "read_words",
    "verb_forms",
    "verb_indices",
    "word_embeddings",
    "word_tokens",
    "write_words",
]
