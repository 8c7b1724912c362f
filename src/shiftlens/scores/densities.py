"""The densities of all responses at one setting, and the measures that are taken of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from shiftlens.scores import density, instruction_score, region_mean
from shiftlens.scores.scored import Scored
from shiftlens.scores.settings import Settings

Values = Float[np.ndarray, " records"]
Measure = Callable[[Scored, Float[np.ndarray, " _"]], float]


@dataclass(frozen=True)
class Densities:
    """Densities of all records at one setting.

    Args:
        records: the responses.
        setting: L, b and p.
        undivided: per record, [prompt] ``||S[n]||_1 / ||S[n]||_p``.
        divided: the same over the largest of the prompt.
    """

    records: Sequence[Scored]
    setting: Settings
    undivided: Sequence[Float[np.ndarray, " _"]]
    divided: Sequence[Float[np.ndarray, " _"]]

    @cached_property
    def headline(self) -> Values:
        """[records] instruction scores."""
        return self._each(lambda r, a: instruction_score(a, r.instruction))

    @cached_property
    def headline_undivided(self) -> Values:
        """[records] instruction scores without the division by the prompt's largest density."""
        return self._each(lambda r, a: instruction_score(a, r.instruction), self.undivided)

    @cached_property
    def instruction_mean(self) -> Values:
        """[records] mean density of the instruction tokens; 0 without any."""
        return self._each(lambda r, a: region_mean(a, r.instruction) if r.instruction.any() else 0.0)

    @cached_property
    def instruction_share(self) -> Values:
        """[records] the instruction's share of all density in the prompt."""
        return self._each(lambda r, a: float(a[r.instruction].sum() / (a.sum() or 1.0)))

    @cached_property
    def others(self) -> Values:
        """[records] the same score of the tokens outside the instruction."""
        return self._each(lambda r, a: instruction_score(a, ~r.instruction))

    @cached_property
    def context_mean(self) -> Values:
        """[records] mean density of the context outside the instruction; NaN without any."""
        return self._each(lambda r, a: region_mean(a, r.context & ~r.instruction))

    def first(self, count: Int[np.ndarray, " records"], divided: bool = True) -> Values:
        """[records] instruction scores from the first ``count[i]`` response tokens of record i."""
        scores = np.zeros(len(self.records))
        for i in np.flatnonzero(count).tolist():
            record = self.records[i]
            undivided, shares = _densities(record, self.setting, int(count[i]))
            scores[i] = instruction_score(shares if divided else undivided, record.instruction)
        return scores

    def _each(self, measure: Measure, values: Sequence[Float[np.ndarray, " _"]] | None = None) -> Values:
        values = self.divided if values is None else values
        return np.array([measure(record, a) for record, a in zip(self.records, values, strict=True)], float)


def densities(records: Sequence[Scored], setting: Settings) -> Densities:
    """Densities of all records at one setting, computed once for all controls."""
    both = [_densities(record, setting) for record in records]
    return Densities(records, setting, [raw for raw, _ in both], [a for _, a in both])


def _densities(
    record: Scored, setting: Settings, first: int | None = None
) -> tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]:
    S = record.levels(setting.L)[:, :first]
    a = density(np.where(setting.b < S, S, 0), setting.p, normalize=False)
    top, n = a.max(initial=0.0), len(record.instruction)
    return a[:n], a[:n] / (top if top > 0 else 1.0)
