"""Resolves, identifies and loads the two models of a pair."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from shiftlens.models.identity import Identity, fingerprint
from shiftlens.models.pair import Pair, RoleSpec, find_layers, find_pair, identify, pair_from_config
from shiftlens.models.roles import ROLES
from shiftlens.models.sources import Resolved, resolve

if TYPE_CHECKING:
    from shiftlens.models.loading import LM, load_lm, load_tokenizer
    from shiftlens.models.opening import open_role

__all__ = [
    "LM",
    "ROLES",
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
    "open_role",
    "pair_from_config",
    "resolve",
]

_HOME = {
    **dict.fromkeys(("LM", "load_lm", "load_tokenizer"), "shiftlens.models.loading"),
    "open_role": "shiftlens.models.opening",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: torch takes seconds to import, and tables and reports only need names and folders.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
