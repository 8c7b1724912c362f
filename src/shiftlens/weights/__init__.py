"""Analyses weights in two ways: feed-forward layers as concepts, attention heads as word pairs."""

from shiftlens.weights.head_pairs import Lexicon, layer_knowledge, lexicon, verb_counts
from shiftlens.weights.layer_concepts import LayerConcepts, closest_words, layer_concepts
from shiftlens.weights.pca import PrincipalComponents, principal_components
from shiftlens.weights.ranking import top_by_magnitude
from shiftlens.weights.rotation import Rotation, RotationNull, compare_concepts, random_rotation

__all__ = [
    "LayerConcepts",
    "Lexicon",
    "PrincipalComponents",
    "Rotation",
    "RotationNull",
    "closest_words",
    "compare_concepts",
    "layer_concepts",
    "layer_knowledge",
    "lexicon",
    "principal_components",
    "random_rotation",
    "top_by_magnitude",
    "verb_counts",
]
