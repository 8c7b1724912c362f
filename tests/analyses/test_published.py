"""T1 and T2 recomputed from the published raw scores must hit the published tables to the digits shown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers.reference import needs_reference, published

from shiftlens.analyses.density.t1_t2 import base_vs_tuned, followed_vs_unfollowed
from shiftlens.scores import density, instruction_score
from shiftlens.scores.following import followed_or_rated

pytestmark = needs_reference


def frame(model: str, role: str, dataset: str) -> pd.DataFrame:
    rows = published(model)
    rows = rows[rows["dataset"] == dataset]
    scores = []
    for row in rows.itertuples():
        S = np.where(row.S <= 7, 0, row.S)
        scores.append(instruction_score(density(S, p=4), np.asarray(row.instruction_mask, bool)))
    unknown = pd.Series(pd.NA, index=rows.index, dtype="boolean")
    return pd.DataFrame(
        {
            "role": role,
            "id": rows["id"],
            "dataset": dataset,
            "instruction_score": scores,
            "followed": followed_or_rated(unknown, rows["rating"]),
            "n_response": rows["response_tokens"].map(len),
        }
    )


T1 = [
    ("self_instruct", (194, 1.2911, 0.5216), (44, 0.9739, 0.4377), 4.57e-5),
    ("lima", (249, 1.4045, 0.4896), (50, 1.0937, 0.4566), 2.59e-5),
]
T2 = [
    ("self_instruct", 252, (1.0043, 0.4965), (1.1939, 0.5358), 2.28e-5, 3.2e-6),
    ("lima", 300, (1.0666, 0.4468), (1.3503, 0.4986), 3.88e-13, 2.9e-21),
]


@pytest.mark.parametrize(("dataset", "followed", "unfollowed", "p"), T1)
def test_followed_against_unfollowed(dataset, followed, unfollowed, p):
    finding = followed_vs_unfollowed(frame("vicuna_7b", "tuned", dataset))
    for name, (n, mean, std) in {"followed": followed, "unfollowed": unfollowed}.items():
        got = finding.groups[name]
        assert (got.n, round(got.mean, 4), round(got.std, 4)) == (n, mean, std)
    assert f"{finding.p:.2e}" == f"{p:.2e}"


@pytest.mark.parametrize(("dataset", "n", "base", "tuned", "welch", "paired"), T2)
def test_base_against_tuned(dataset, n, base, tuned, welch, paired):
    samples = pd.concat([frame("llama_7b", "base", dataset), frame("vicuna_7b", "tuned", dataset)])
    finding = base_vs_tuned(samples)
    assert finding.n == n
    for name, (mean, std) in {"base": base, "tuned": tuned}.items():
        got = finding.groups[name]
        assert (round(got.mean, 4), round(got.std, 4)) == (mean, std)
    assert f"{finding.p_others['Welch t, one-sided (unpaired, as published)']:.2e}" == f"{welch:.2e}"
    assert f"{finding.p:.1e}" == f"{paired:.1e}"
