"""The published raw scores of LLaMA-7B and Vicuna-7B, where they are on this machine."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FOLDER = Path(os.environ.get("SHIFTLENS_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
needs_reference = pytest.mark.skipif(
    not FOLDER.is_dir(),
    reason=f"published scores are not at {FOLDER} (set SHIFTLENS_REFERENCE to their folder)",
)


@functools.cache
def published(model: str) -> pd.DataFrame:
    """Rows of `llama_7b` or `vicuna_7b`, with `S` [prompt, response] as a matrix (L=10, b=0)."""
    rows = pd.read_parquet(FOLDER / f"{model}.parquet")
    rows["S"] = [
        np.asarray(score, np.uint8).reshape(len(prompt), len(response))
        for score, prompt, response in zip(
            rows["score"], rows["prompt_tokens"], rows["response_tokens"], strict=True
        )
    ]
    return rows
