"""Chooses the checks and responses that the report of a tuning shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd


def by_checker(held_out: pd.DataFrame) -> list[dict[str, Any]]:
    """Count the prompts followed before and after tuning, by checker.

    Args:
        held_out: Table ``held_out`` of :class:`~shiftlens.analyses.training.findings.Training`.

    Returns:
        ``checker, n, before, after``; the checker with the most prompts comes first.
    """
    rows = [
        {
            "checker": str(name),
            "n": len(prompts),
            "before": int(prompts["before"].sum()),
            "after": int(prompts["after"].sum()),
        }
        for name, prompts in held_out.groupby("checker", sort=True)
    ]
    return sorted(rows, key=lambda row: (-row["n"], row["checker"]))


def choose_examples(probes: pd.DataFrame, count: int) -> list[dict[str, Any]]:
    """Choose probes to show with the model's own responses before, in the middle of, and after tuning.

    Takes the first probe of each outcome, then the second of each, and so on.

    Args:
        probes: Table ``probes`` of :class:`~shiftlens.analyses.training.findings.Training`.
        count: Largest number of probes.

    Returns:
        ``id, prompt, outcome, responses`` of each probe; each response has ``when, step, text, followed, score``.
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
    order = [name for turn in range(count) for names in groups.values() for name in names[turn : turn + 1]]
    outcome = {name: kind for kind, names in groups.items() for name in names}
    examples = []
    for name in order[:count]:
        rows = own[own["id"].astype(str) == name].set_index("step")
        responses = [
            {"when": _when(step, steps), "step": step, "text": str(rows.loc[step, "response"]),
             "followed": None if pd.isna(rows.loc[step, "followed"]) else bool(rows.loc[step, "followed"]),
             "score": float(rows.loc[step, "instruction_score"])}
            for step in looks if step in rows.index
        ]  # fmt: skip
        prompt = str(rows["prompt"].iloc[0])
        examples.append({"id": name, "prompt": prompt, "outcome": outcome[name], "responses": responses})
    return examples


_OUTCOMES: Mapping[Any, str] = {
    (False, True): "followed only after",
    (True, False): "followed only before",
    (True, True): "followed before and after",
    (False, False): "not followed before or after",
    None: "not judged",
}


def _when(step: int, steps: Sequence[int]) -> str:
    return "before" if step == steps[0] else "after" if step == steps[-1] else "during"
