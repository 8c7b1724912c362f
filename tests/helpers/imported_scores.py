"""Scores computed elsewhere, made up: the same content as tables and as pickles, and how they are read."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from shiftlens.run.scores_run import ScoresOptions
from shiftlens.scores.settings import Settings

ROOT = Path(__file__).parents[2]
QUIET = Console(quiet=True)


def analyze(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "analyze.py"), "data=scores", "hydra.run.dir=out", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "COLUMNS": "160", "SHIFTLENS_CHECK_SHAPES": "0", "OMP_NUM_THREADS": "1"},
    )


def options(base: Path, tuned: Path, **more) -> ScoresOptions:
    plain = ScoresOptions(
        base, tuned, None, "scores", {"lima_": "lima", "user_oriented_task_": "self_instruct"}, 10, None, False,
        Settings(), 0, None, 0, 3, permutations=50,
    )  # fmt: skip
    return replace(plain, **more)


def rows_of(role: str, n: int = 24) -> pd.DataFrame:
    """Responses to small prompts in two data sets, with scores S and raw importance that S comes from."""
    draw = np.random.default_rng(len(role))
    rows = []
    for i in range(n):
        pieces = ["▁Say", "<0x0A>", "caf", "<0xC3>", "<0xA9>", "▁now", ":", "▁blue", "▁sky", "▁is"]
        m = int(draw.integers(6, 12))
        importance = draw.normal(size=(len(pieces), m))
        importance[:2] += 0.8 if role == "tuned" else 0.0
        largest = np.maximum(importance, 0).max(axis=0)
        share = np.maximum(importance, 0) / np.where(largest > 0, largest, 1)
        S = np.minimum(np.ceil(10 * share), 10).astype(np.uint8)
        rows.append(
            {
                "id": f"{'lima_' if i % 2 else 'user_oriented_task_'}{i}",
                "dataset": "lima" if i % 2 else "self_instruct",
                "prompt": "Say\ncafé now: blue sky is",
                "rating": i % 3 + 1 if role == "tuned" else None,
                "prompt_tokens": pieces,
                "response_tokens": [f"▁w{j}" for j in range(m)],
                "instruction_mask": [place < 5 for place in range(len(pieces))],
                "context_mask": [place in (7, 8) for place in range(len(pieces))],
                "score": S.ravel(),
                "importance": importance.ravel(),
            }
        )
    return pd.DataFrame(rows)


def table(path: Path, rows: pd.DataFrame, scores: str = "score") -> Path:
    rows.drop(columns={"score": "importance", "importance": "score"}[scores]).to_parquet(path)
    return path


def pickles(folder: Path, rows: pd.DataFrame, scores: str = "score", dtype: type = np.float32) -> Path:
    """As published: a dict of strings, lists of strings and one array, that of an empty response without rows."""
    folder.mkdir()
    for row in rows.to_dict("records"):
        shape = len(row["prompt_tokens"]), len(row["response_tokens"])
        matrix = np.asarray(row[scores], dtype).reshape(shape) if shape[1] else np.array([])
        content = {
            "ID": row["id"],
            "Input": list(row["prompt_tokens"]),
            "Reference": "a person's answer",
            "Output": list(row["response_tokens"]),
            "Explain": matrix,
        }
        (folder / f"{row['id']}.pkl").write_bytes(pickle.dumps(content))
    return folder


def prompt_table(path: Path, rows: pd.DataFrame) -> Path:
    lines = ["ID\tPrompt\tResponse\tInstruct&Context\trating"]
    lines += [
        f"{row.id}\tSay/ncafé now: blue sky is\tok\tSay/ncafé&&&blue sky\t{int(row.rating)}"
        for row in rows.itertuples()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
