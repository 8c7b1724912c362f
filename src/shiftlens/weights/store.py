"""Stores the results of each layer on disk, so that a model is analysed once for all pairs it is part of."""

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
"""Part of every key; increased when a change of the code changes the stored numbers."""

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]


class LayerStore:
    """Store with one file per layer, in a folder named by the content of the model and the settings.

    The folder depends on the weights and their dtype, but not on the chat template, which the results do not
    depend on. Files are written completely or not at all, so every file present is valid, and a run that was
    killed continues with the missing layers. Any number of processes may write at the same time.

    Args:
        cache: Folder of caches.
        identity: Identity of the model.
        kind: Kind of result, e.g. ``concepts``.
        settings: All other settings on which the numbers depend, as plain values.

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
        """Numbers of layers and heads of the model; ``None`` before :meth:`describe` was called."""
        path = self.folder / "about.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))["model"]) if path.exists() else None

    def describe(self, shape: Mapping[str, int]) -> None:
        """Store the model's numbers of layers and heads, together with the settings, for readers of the folder."""
        write_text(self.folder / "about.json", json.dumps({**self._about, "model": dict(shape)}, indent=1))

    def missing(self, layers: Sequence[int]) -> list[int]:
        """Return those of the given layers that are not stored."""
        return [layer for layer in layers if not self._path(layer).exists()]

    def save(self, layer: int, arrays: Arrays) -> None:
        """Store the arrays of a layer."""
        tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_whole(self._path(layer), lambda partial: save_file(tensors, partial))

    def load(self, layer: int) -> dict[str, Shaped[np.ndarray, ...]]:
        """Return the arrays of a stored layer."""
        return load_file(self._path(layer))

    def _path(self, layer: int) -> Path:
        return self.folder / f"layer-{layer:03d}.safetensors"
