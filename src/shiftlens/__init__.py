"""ShiftLens: see what instruction tuning changed inside your language model.

>>> import numpy as np
>>> import shiftlens as sl
>>> S = sl.score(np.array([[4.0, -1.0], [1.0, 0.0]]), L=10, b=3)
>>> sl.density(S, p=4).tolist()
[1.0, 0.0]
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

_FOLDER = Path(__file__).parent
if _LOST := [name for name in ("callbacks", "conf", "hooks") if not (_FOLDER / name).is_dir()]:
    raise ImportError(
        f"In {_FOLDER}, {', '.join(_LOST)} should be symbolic links to folders of the same name at the top of the "
        "checkout, but this checkout was made without links. Allow links (on Windows: developer mode), then run: "
        "git config core.symlinks true && git checkout -- " + " ".join(f"src/shiftlens/{name}" for name in _LOST)
    )

if os.environ.get("SHIFTLENS_CHECK_SHAPES") == "1":
    # Shapes in signatures are then checked at every call; tests switch this on.
    from jaxtyping import install_import_hook

    install_import_hook("shiftlens", "beartype.beartype")

if TYPE_CHECKING:
    from shiftlens.api.attribute import Attribution, attribute
    from shiftlens.api.tune import tune
    from shiftlens.api.weight_views import concepts, rotation, word_pairs
    from shiftlens.models.opening import load
    from shiftlens.scores import density, instruction_score, score

__version__ = "0.2.0"
__all__ = [
    "Attribution",
    "attribute",
    "concepts",
    "density",
    "instruction_score",
    "load",
    "rotation",
    "score",
    "tune",
    "word_pairs",
]

_HOME = {
    **dict.fromkeys(("Attribution", "attribute"), "shiftlens.api.attribute"),
    "load": "shiftlens.models.opening",
    "tune": "shiftlens.api.tune",
    **dict.fromkeys(("concepts", "rotation", "word_pairs"), "shiftlens.api.weight_views"),
    **dict.fromkeys(("density", "instruction_score", "score"), "shiftlens.scores"),
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: torch takes seconds to import, and the command line's --help needs none.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'shiftlens' has no attribute {name!r}")
