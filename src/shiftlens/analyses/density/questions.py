"""Selects the records that T1 and T2 compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shiftlens.scores.following import MIN_RESPONSE_TOKENS
from shiftlens.scores.scored import Scored
from shiftlens.stats.contrast import Question


def followed_question(records: Sequence[Scored], role: str = "tuned") -> Question:
    """Build T1: followed against unfollowed responses of one model.

    Responses with fewer than ``MIN_RESPONSE_TOKENS`` tokens, and responses without a verdict, are left out.

    Args:
        records: Responses of base and tuned.
        role: Model whose responses are compared: ``base`` or ``tuned``.
    """
    used = [i for i, r in enumerate(records) if r.role == role and r.n_response >= MIN_RESPONSE_TOKENS]
    high = [i for i in used if records[i].followed is True]
    low = [i for i in used if records[i].followed is False]
    return _question(records, high, low, paired=False)


def tuning_question(records: Sequence[Scored]) -> Question:
    """Build T2: tuned against base, on the prompts for which both models have a record.

    Args:
        records: Responses of base and tuned.
    """
    index_by_key = {(r.role, r.dataset, r.id): i for i, r in enumerate(records)}
    pairs = [
        (i, index_by_key.get(("base", data, key)))
        for (role, data, key), i in index_by_key.items()
        if role == "tuned"
    ]
    complete = [(tuned, base) for tuned, base in pairs if base is not None]
    return _question(records, [tuned for tuned, _ in complete], [base for _, base in complete], paired=True)


def _question(records: Sequence[Scored], high: list[int], low: list[int], paired: bool) -> Question:
    strata = tuple(records[i].dataset for i in [*high, *low])
    return Question(paired, np.array(high, int), np.array(low, int), strata)
