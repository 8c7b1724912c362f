"""Runs the two tests of the paper on instruction scores.

T1 compares followed with unfollowed responses of one model; T2 compares base and tuned on the same prompts.
"""

from __future__ import annotations

import pandas as pd

from shiftlens.results.finding import Finding
from shiftlens.scores.following import MIN_RESPONSE_TOKENS
from shiftlens.stats.two_groups import independent, paired

T1, T1_IN_BASE, T2 = (
    "density/followed_vs_unfollowed",
    "density/followed_vs_unfollowed_in_base",
    "density/base_vs_tuned",
)


def followed_vs_unfollowed(samples: pd.DataFrame, role: str = "tuned", seed: int = 0) -> Finding:
    """Run T1: test whether the instruction score is higher where the response follows the instruction.

    Args:
        samples: Rows of table ``samples`` from one data set.
        role: Model whose responses are compared: ``base`` or ``tuned``.
        seed: Random seed for the bootstrap interval.
    """
    rows = samples[samples["role"] == role]
    long_enough = rows["n_response"] >= MIN_RESPONSE_TOKENS
    known = rows["followed"].notna()
    used = rows[long_enough & known]
    yes = used.loc[used["followed"].astype(bool), "instruction_score"].to_numpy(float)
    no = used.loc[~used["followed"].astype(bool), "instruction_score"].to_numpy(float)
    dropped = [
        (int((~long_enough).sum()), f"with a response under {MIN_RESPONSE_TOKENS} tokens"),
        (int((long_enough & ~known).sum()), "not judged"),
    ]
    return independent(yes, no, seed).finding(
        name=T1 if role == "tuned" else T1_IN_BASE,
        view="density",
        measure="instruction score",
        expected="followed",
        data=_data(rows),
        role=role,
        question=f"Do instruction words weigh more in the {role} model when it follows the instruction?",
        null="mean instruction score of followed responses <= that of unfollowed responses",
        test="Welch t, one-sided",
        groups={"followed": yes, "unfollowed": no},
        n=len(used),
        notes=[f"left out: {count} {why}" for count, why in dropped if count],
    )


def base_vs_tuned(samples: pd.DataFrame, seed: int = 0, labels: tuple[str, str] = ("base", "tuned")) -> Finding:
    """Run T2: test whether tuning raises the instruction score on the same prompts.

    Responses of any length are used; an empty response has the score 0, as in the paper.

    Args:
        samples: Rows of table ``samples`` from one data set.
        seed: Random seed for the bootstrap interval.
        labels: Names of the base and the tuned group.
    """
    wide = samples.pivot(index="id", columns="role", values="instruction_score").reindex(columns=["base", "tuned"])
    both = wide.dropna()
    base, tuned = both["base"].to_numpy(float), both["tuned"].to_numpy(float)
    missing = len(wide) - len(both)
    lengths = samples.groupby("role")["n_response"].mean()
    # Density grows with the number of response tokens, so a difference in length is a rival explanation.
    length_note = f"mean response tokens: {labels[0]} {lengths['base']:.1f}, {labels[1]} {lengths['tuned']:.1f}"
    return paired(tuned, base, seed).finding(
        name=T2,
        view="density",
        measure="instruction score",
        expected=labels[1],
        data=_data(samples),
        role="both",
        question="Did tuning raise the weight of instruction words?",
        null="mean difference of instruction score, tuned minus base on the same prompts, is <= 0",
        test="paired t, one-sided",
        groups=dict(zip(labels, (base, tuned), strict=True)),
        n=len(both),
        notes=[length_note, *([f"left out: {missing} prompts without a score of both roles"] if missing else [])],
    )


def _data(samples: pd.DataFrame) -> str:
    return str(samples["dataset"].iloc[0]) if len(samples) else ""
