"""Splits the difference that T2 tests into what the model and what the text contributes.

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
from shiftlens.scores import instruction_score
from shiftlens.scores.samples import Measured

Values = Float[np.ndarray, " prompts"]


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
