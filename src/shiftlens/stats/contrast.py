"""Describes T1 and T2 as index sets of records, so that the test, the grid and every control share one code."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from shiftlens.stats.permutation import (
    PERMUTATIONS,
    MaxT,
    label_test,
    paired_t,
    sign_test,
    standardised,
    welch_t,
)
from shiftlens.stats.result import Comparison
from shiftlens.stats.two_groups import independent, paired


@dataclass(frozen=True)
class Question:
    """Which records are expected to score higher than which.

    Args:
        paired: Whether this is T2 (the same prompts under two models) and not T1 (two groups of responses).
        high: Indices of the followed (T1) or tuned (T2) records.
        low: Indices of the unfollowed (T1) or base (T2) records; in T2 in the order of ``high``.
        strata: Data set of each record of ``high``, then of each record of ``low``.
    """

    paired: bool
    high: Int[np.ndarray, " _"]
    low: Int[np.ndarray, " _"]
    strata: tuple[str, ...]

    @property
    def used(self) -> Int[np.ndarray, " _"]:
        """[n] indices of all compared records, ``high`` first."""
        return np.concatenate([self.high, self.low])

    @property
    def labels(self) -> Bool[np.ndarray, " _"]:
        """[n] for each record of ``used``, whether it is in ``high``."""
        return np.arange(len(self.used)) < len(self.high)

    @property
    def size(self) -> str:
        """Number of compared prompts (T2) or responses (T1), in words."""
        if self.paired:
            return f"{len(self.high)} prompts"
        return f"{len(self.high)} + {len(self.low)} responses"

    def where(self, keep: Bool[np.ndarray, " records"]) -> Question:
        """Restrict the question to some of the records.

        Args:
            keep: [records] Whether each record may be used; T2 drops a pair unless both its records may.
        """
        if self.paired:
            pairs = keep[self.high] & keep[self.low]
            stays = np.concatenate([pairs, pairs])
        else:
            stays = keep[self.used]
        high, low = np.split(stays, [len(self.high)])
        strata = tuple(name for name, stay in zip(self.strata, stays, strict=True) if stay)
        return replace(self, high=self.high[high], low=self.low[low], strata=strata)

    def compare(self, values: Float[np.ndarray, " records"]) -> Comparison:
        """Run the one-sided Welch t-test (T1) or paired t-test (T2), with Hedges g and without an interval.

        Args:
            values: [records] One number per record.
        """
        test = paired if self.paired else independent
        return test(values[self.high], values[self.low], resamples=0)

    def t(self, values: Float[np.ndarray, "cells records"]) -> Float[np.ndarray, " cells"]:
        """Compute the t of :meth:`compare` for many measures at once.

        Args:
            values: [cells, records] One measure per row.

        Returns:
            [cells] t-values; 0 for a measure that does not vary.
        """
        if self.paired:
            differences = values[:, self.high] - values[:, self.low]
            return paired_t(differences, np.ones((1, len(self.high))))[0][:, 0]
        return welch_t(standardised(values[:, self.used]), self.labels.astype(float)[None])[0][:, 0]

    def permute(
        self, scores: Float[np.ndarray, "cells records"], permutations: int = PERMUTATIONS, seed: int = 0
    ) -> MaxT:
        """Run the permutation test under every setting of a grid.

        Args:
            scores: [cells, records] Instruction scores, one row per setting.
            permutations: Number of relabellings.
            seed: Random seed for the relabellings.
        """
        if self.paired:
            return sign_test(scores[:, self.high] - scores[:, self.low], permutations, seed)
        return label_test(scores[:, self.used], self.labels, np.array(self.strata, str), permutations, seed)
