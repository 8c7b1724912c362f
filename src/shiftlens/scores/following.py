"""Whether a response counts as following its instruction: by a check, else by a human rating."""

from __future__ import annotations

import pandas as pd

MIN_RESPONSE_TOKENS = 5
"""Shorter responses are left out of T1, as in the paper."""


def followed_or_rated(followed: pd.Series, rating: pd.Series) -> pd.Series:
    """Followed, from a check where there is one, else from a human rating (>= 2 yes, 1 no, else unknown).

    Args:
        followed: nullable booleans from checks.
        rating: human ratings or missing.

    Example:
        >>> followed_or_rated(pd.Series([None, True, None], dtype="boolean"), pd.Series([2, 1, 0])).tolist()
        [True, True, <NA>]
    """
    rated = pd.Series(pd.NA, index=rating.index, dtype="boolean")
    rated[(rating >= 2).fillna(False)] = True
    rated[(rating == 1).fillna(False)] = False
    return followed.astype("boolean").fillna(rated)
