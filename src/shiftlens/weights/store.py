"""Keeps the results of each layer of a model on disk: a model is taken apart once, whatever pair it is part of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from safetensors.numpy import load_file, save_file

from shiftlens.models.identity import Identity, digest
from shiftlens.support.whole_files import write_text, write_whole

WEIGHTS_VERSION = 1
"""Part of every key; raised when the numbers themselves change."""

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]


class LayerStore:
    """One file per layer, below a folder named by the content of the model and the settings.

    The identity covers the weights and the type they are computed in, and not the template, on which the weights
    do not depend. Files are written whole or not at all, so every file that exists can be used, and a run that was
    killed continues with the missing layers. Any number of processes may write.

    Args:
        cache: Folder of caches.
        identity: Identity of the model.
        kind: Kind of the results, e.g. ``concepts``.
        settings: All other settings that the numbers depend on, as plain values.

    Example:
        >>> import tempfile
        >>> cache = Path(tempfile.mkdtemp())
        >>> store = LayerStore(cache, Identity("here", "f00", "", "float32"), "concepts", {"components": 3})
        >>> store.describe({"layers": 2, "heads": 4})
        >>> store.save(1, {"ratio": np.ones(3)})
        >>> store.shape, store.missing([0, 1]), store.load(1)["ratio"].tolist()
        ({'layers': 2, 'heads': 4}, [0], [1.0, 1.0, 1.0])
    """

    def __init__(self, cache: Path, identity: Identity, kind: str, settings: Mapping[str, Any]) -> None:
        self._about = {"version": WEIGHTS_VERSION, "kind": kind, "settings": dict(settings)}
        self.folder = cache / "weights" / identity.hash / f"{kind}-{digest(self._about)}"

    @property
    def shape(self) -> dict[str, int] | None:
        """Numbers of layers and heads of the model; ``None`` before the first look at it."""
        path = self.folder / "about.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))["model"]) if path.exists() else None

    def describe(self, shape: Mapping[str, int]) -> None:
        """Keep the model's numbers of layers and heads, with the settings for human readers."""
        write_text(self.folder / "about.json", json.dumps({**self._about, "model": dict(shape)}, indent=1))

    def missing(self, layers: Sequence[int]) -> list[int]:
        """List those of some layers that are not kept yet."""
        return [layer for layer in layers if not self._path(layer).exists()]

    def save(self, layer: int, arrays: Arrays) -> None:
        """Keep the arrays of a layer."""
        tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_whole(self._path(layer), lambda partial: save_file(tensors, partial))

    def load(self, layer: int) -> dict[str, Shaped[np.ndarray, ...]]:
        """Load the arrays of a layer that is kept."""
        return load_file(self._path(layer))

    def _path(self, layer: int) -> Path:
        return self.folder / f"layer-{layer:03d}.safetensors"
