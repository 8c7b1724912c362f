"""Tests how much the model and the text each contribute to the difference that T2 tests."""

from __future__ import annotations

import numpy as np
import pandas as pd

from shiftlens.analyses.crossed.compute import split
from shiftlens.models.roles import ROLES
from shiftlens.results.finding import Finding
from shiftlens.stats.one_sample import mean_of


def crossed_findings(table: pd.DataFrame, seed: int = 0) -> list[Finding]:
    """Test model effect, text effect and interaction, per data set and with the prompt as the unit.

    Args:
        table: Table from :func:`~shiftlens.analyses.crossed.compute.crossed_table`.
        seed: Random seed for the bootstrap intervals.

    Returns:
        Findings named ``density/model_effect``, ``density/text_effect`` and ``density/interaction``. The effect is
        in units of the instruction score, so that the first two add up to the difference that T2 tests.
    """
    findings = []
    for dataset, rows in table.groupby("dataset", sort=False):
        wide = rows.pivot(index="id", columns=["role", "text"], values="instruction_score")
        cells = {(role, text): wide[role, text].to_numpy(float) for role in ROLES for text in ROLES}
        base, tuned = (np.mean([cells[role, text] for text in ROLES], axis=0) for role in ROLES)
        of_base, of_tuned = (np.mean([cells[role, text] for role in ROLES], axis=0) for text in ROLES)
        wording = {
            "model": (
                "Do the models weigh instruction words differently in the same responses?",
                "mean over both responses, tuned model minus base model, is 0",
                {"the base model": base, "the tuned model": tuned},
            ),
            "text": (
                "Do the responses lean on instruction words differently under the same models?",
                "mean over both models, tuned response minus base response, is 0",
                {"the base response": of_base, "the tuned response": of_tuned},
            ),
            "interaction": (
                "Is the difference between the models another one on the tuned model's response?",
                "tuned minus base model is the same on both responses",
                {f"{role} model, {text} response": cells[role, text] for role, text in cells},
            ),
        }
        for name, effects in split(cells).items():
            question, null, groups = wording[name]
            findings.append(
                mean_of(effects, seed).finding(
                    name=f"density/{name}" if name == "interaction" else f"density/{name}_effect",
                    view="density",
                    measure="instruction score",
                    data=str(dataset),
                    role="both",
                    question=question,
                    null=null,
                    test="paired t, two-sided",
                    n=len(effects),
                    groups=groups,
                    effect_name="difference of instruction score",
                )
            )
    return findings
