"""Made-up rows of the ledger."""

from __future__ import annotations

import numpy as np

from shiftlens.attribution import Row
from shiftlens.models import Identity

MODEL = Identity("m", "f00", "", "float32")


def row(key: str, N: int = 3, M: int = 4) -> Row:
    rng = np.random.default_rng(len(key) + N * M)
    return Row(
        key,
        np.arange(N + M, dtype=np.int32),
        np.arange(N, dtype=np.int32),
        rng.normal(size=(N, M)).astype(np.float32),
        -rng.random(M).astype(np.float32),
        rng.integers(1, 9, M).astype(np.int32),
        "a response",
        True,
        "forward",
    )
