"""Resolves, identifies and loads the two models of a pair."""

from shiftlens.models.identity import Identity, fingerprint
from shiftlens.models.loading import LM, load_lm, load_tokenizer
from shiftlens.models.pair import Pair, RoleSpec, find_layers, find_pair, identify, pair_from_config
from shiftlens.models.sources import Resolved, resolve

__all__ = [
    "LM",
    "Identity",
    "Pair",
    "Resolved",
    "RoleSpec",
    "find_layers",
    "find_pair",
    "fingerprint",
    "identify",
    "load_lm",
    "load_tokenizer",
    "pair_from_config",
    "resolve",
]
