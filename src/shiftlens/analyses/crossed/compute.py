"""Both models on both responses: did the model change, or the text that it explains?

T2 compares the tuned model on its own response with the base model on another one. With ``D[model, text]``, the
instruction score of a prompt under a model that explains a response, the difference splits exactly:

``D[tuned, tuned] - D[base, base] = model effect + text effect``, where the model effect is the mean over both
texts of ``D[tuned, text] - D[base, text]``, and the text effect the mean over both models of
``D[model, tuned] - D[model, base]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from shiftlens.models.roles import ROLES
from shiftlens.results.analysis import Section
from shiftlens.results.finding import Finding
from shiftlens.scores import instruction_score
from shiftlens.scores.samples import Measured
from shiftlens.stats.one_sample import mean_of

Values = Float[np.ndarray, " prompts"]


def crossed(measured: Sequence[Measured], seed: int = 0) -> Section:
    """Table and split of all four cells.

    Args:
        measured: every prompt under both models and both texts.
        seed: of the bootstrap intervals.
    """
    table = crossed_table(measured)
    return Section(crossed_findings(table, seed), {"crossed": table})


def crossed_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """One row per prompt, model and text.

    Columns: ``role, text, id, dataset, instruction_score, n_response, log_likelihood``. ``role`` is the model that
    explains, ``text`` whose response it explains; ``log_likelihood`` is the mean log probability of a response
    token, in nats, missing for an empty response.
    """
    return pd.DataFrame(
        [
            {
                "role": m.role,
                "text": m.text,
                "id": m.encoded.prompt.id,
                "dataset": m.encoded.prompt.dataset,
                "instruction_score": instruction_score(m.prompt_density, m.encoded.instruction),
                "n_response": len(m.row.log_probability),
                "log_likelihood": float(m.row.log_probability.mean()) if len(m.row.log_probability) else np.nan,
            }
            for m in measured
        ]
    )


def split(cells: dict[tuple[str, str], Values]) -> dict[str, Values]:
    """The three effects of each prompt.

    Args:
        cells: (model, text) -> [prompts] instruction scores.

    Returns:
        ``model``, ``text`` and ``interaction``; the first two add up to ``D[tuned, tuned] - D[base, base]``.

    Example:
        >>> one = {("base", "base"): 1.0, ("base", "tuned"): 1.5, ("tuned", "base"): 1.25, ("tuned", "tuned"): 2.0}
        >>> {name: float(v[0]) for name, v in split({key: np.array([v]) for key, v in one.items()}).items()}
        {'model': 0.375, 'text': 0.625, 'interaction': 0.25}
    """
    bb, bt, tb, tt = (cells[role, text] for role in ROLES for text in ROLES)
    return {"model": (tt - bt + tb - bb) / 2, "text": (tt - tb + bt - bb) / 2, "interaction": tt - bt - tb + bb}


def crossed_findings(table: pd.DataFrame, seed: int = 0) -> list[Finding]:
    """Model effect, text effect and interaction, per data set, each tested over prompts.

    Args:
        table: from :func:`crossed_table`.
        seed: of the bootstrap intervals.

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
        asked = {
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
            question, null, groups = asked[name]
            findings.append(
                mean_of(effects, seed).finding(
                    name=f"density/{name}" if name == "interaction" else f"density/{name}_effect",
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
