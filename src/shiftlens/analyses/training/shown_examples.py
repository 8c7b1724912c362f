"""Chooses what the page of a tuning shows: checks, and responses before, during and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd


def by_checker(held_out: pd.DataFrame) -> list[dict[str, Any]]:
    """Followed before and after by checker, most prompts first: ``checker, n, before, after``."""
    rows = [
        {
            "checker": str(name),
            "n": len(part),
            "before": int(part["before"].sum()),
            "after": int(part["after"].sum()),
        }
        for name, part in held_out.groupby("checker", sort=True)
    ]
    return sorted(rows, key=lambda row: (-row["n"], row["checker"]))


def choose_examples(probes: pd.DataFrame, count: int) -> list[dict[str, Any]]:
    """Probes with their own responses before, in the middle and after: of each outcome the first, in turn.

    Args:
        probes: of :class:`~shiftlens.analyses.training.findings.Training`.
        count: most of them.

    Returns:
        ``id, prompt, outcome, responses`` with ``when, step, text, followed, score`` each.
    """
    own = probes[probes["text"] == "own"]
    steps = sorted(own["step"].unique().tolist())
    if not steps or not count:
        return []
    looks = dict.fromkeys([steps[0], steps[len(steps) // 2], steps[-1]])
    groups: dict[str, list[str]] = {name: [] for name in _OUTCOMES.values()}
    first, last = (own[own["step"] == step].set_index("id")["followed"] for step in (steps[0], steps[-1]))
    for name in first.index:
        groups[_OUTCOMES.get((first[name], last.get(name)), "not judged")].append(str(name))
    order = [name for turn in range(count) for part in groups.values() for name in part[turn : turn + 1]]
    outcome = {name: kind for kind, part in groups.items() for name in part}
    found = []
    for name in order[:count]:
        rows = own[own["id"].astype(str) == name].set_index("step")
        responses = [
            {"when": _when(step, steps), "step": step, "text": str(rows.loc[step, "response"]),
             "followed": None if pd.isna(rows.loc[step, "followed"]) else bool(rows.loc[step, "followed"]),
             "score": float(rows.loc[step, "instruction_score"])}
            for step in looks if step in rows.index
        ]  # fmt: skip
        prompt = str(rows["prompt"].iloc[0])
        found.append({"id": name, "prompt": prompt, "outcome": outcome[name], "responses": responses})
    return found


_OUTCOMES: Mapping[Any, str] = {
    (False, True): "followed only after",
    (True, False): "followed only before",
    (True, True): "followed before and after",
    (False, False): "not followed before or after",
    None: "not judged",
}


def _when(step: int, steps: Sequence[int]) -> str:
    return "before" if step == steps[0] else "after" if step == steps[-1] else "during"
