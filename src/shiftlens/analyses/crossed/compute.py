"""Splits the difference that T2 tests into what the model and what the text contributes.

T2 compares the tuned model on the tuned response with the base model on the base response. Let ``D[model, text]``
be the instruction score of a prompt if ``model`` explains the response ``text``. The difference splits exactly:

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
from shiftlens.scores import instruction_score
from shiftlens.scores.samples import Measured

Values = Float[np.ndarray, " prompts"]


def crossed_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """Build the table with one row per prompt, model and text.

    Args:
        measured: Measured responses: every prompt under both models and both texts.

    Returns:
        ``role, text, id, dataset, instruction_score, n_response, log_likelihood``: ``role`` is the model that
        explains, ``text`` the model that wrote the explained response; ``log_likelihood`` is the mean log
        probability of a response token in nats, NaN for an empty response.
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
    """Compute the model effect, the text effect and their interaction for each prompt.

    Args:
        cells: (model, text) -> [prompts] Instruction scores.

    Returns:
        ``model``, ``text`` and ``interaction``, each [prompts]; the first two add up to
        ``D[tuned, tuned] - D[base, base]``.

    Example:
        >>> D = {("base", "base"): 1.0, ("base", "tuned"): 1.5, ("tuned", "base"): 1.25, ("tuned", "tuned"): 2.0}
        >>> {name: float(v[0]) for name, v in split({key: np.array([v]) for key, v in D.items()}).items()}
        {'model': 0.375, 'text': 0.625, 'interaction': 0.25}
    """
    bb, bt, tb, tt = (cells[role, text] for role in ROLES for text in ROLES)
    return {"model": (tt - bt + tb - bb) / 2, "text": (tt - tb + bt - bb) / 2, "interaction": tt - bt - tb + bb}
