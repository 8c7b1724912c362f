"""Records with a planted effect: which tokens the responses rest on is known."""

from __future__ import annotations

import numpy as np

from shiftlens.analyses.density.grid import all_settings
from shiftlens.scores.scored import Scored
from shiftlens.scores.settings import Settings

HEADLINE = Settings(10, 3, 4)
SMALL = all_settings(Ls=[10], ps=[2, 4])


def planted(n=120, seed=0, gain=0.0, other_gain=0.0, length=lambda i, role: 40, other=6, data="d", anchor=False):
    """Records whose response tokens rest on the instruction, or the other tokens, more often when tuned or followed.

    ``gain`` and ``other_gain`` are the shares of response tokens that spread over those tokens. An anchor is a
    source outside the prompt that all response tokens rest on most, so that the largest density stays the same.
    """
    rng, records = np.random.default_rng(seed), []
    mask = np.arange(4 + other) < 4
    for i in range(n):
        followed = i % 2 == 0
        for role in ("base", "tuned"):
            M = length(i, role)
            importance = rng.exponential(size=(4 + other, M)) * np.where(rng.random(M) < 0.3, 1, 0.3)
            raised = role == "tuned" and followed
            for tokens, share in ((mask, gain), (~mask, other_gain)):
                columns = rng.random(M) < share * raised
                importance[np.ix_(tokens, columns)] += 4.0
            if anchor:
                importance = np.vstack([importance, np.full((1, M), 10.0)])
            records.append(Scored(data, str(i), role, mask, ~mask, followed if role == "tuned" else None,
                                  importance=importance))  # fmt: skip
    return records
