"""Predicts the time of an attribution from its token rows and the cost of a row, and picks a mode and a cut."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from jaxtyping import Bool

from shiftlens.attribution.plan.row_counts import carried, token_rows

REFUSALS = (RuntimeError, ValueError, AttributeError, TypeError, IndexError)
"""Errors of models that do not support a transformation; errors of full memory are recognized separately."""


@dataclass(frozen=True)
class Costs:
    """Coefficients of the time of an attribution, ``fixed + row * rows``, in seconds or any other unit.

    Args:
        forward_row: Time of one token row in forward mode.
        reverse_row: Time of one token row in reverse mode, with its share of the ordinary pass and of the graph.
        forward_fixed: Time in forward mode that does not depend on the text.
        reverse_fixed: Time in reverse mode that does not depend on the text.
        measured_at: Time of the measurement on this machine, ISO 8601 with a time zone; ``None`` if these times
            were not measured.

    Example:
        >>> Costs(0.5, 1.0, measured_at="2020-01-01T00:00:00+00:00").record()["age_days"] > 365
        True
    """

    forward_row: float
    reverse_row: float
    forward_fixed: float = 0.0
    reverse_fixed: float = 0.0
    measured_at: str | None = None

    @property
    def age_days(self) -> float | None:
        """Days since the measurement, to a tenth; ``None`` if there was none."""
        if self.measured_at is None:
            return None
        age = datetime.now(UTC) - datetime.fromisoformat(self.measured_at)
        return round(age.total_seconds() / 86400, 1)

    def record(self) -> dict[str, Any]:
        """Return the fields and the age as plain values, for provenance records."""
        return {**asdict(self), "age_days": self.age_days}


UNMEASURED = Costs(forward_row=1.0, reverse_row=1.0)
"""Relative costs of LLaMA-type layers on a CPU core (float32, 135M parameters), for use without a measurement."""


def best_cut(
    costs: Costs, sources: Sequence[int], total: int, response: int, fits: Bool[np.ndarray, " total"] | None = None
) -> tuple[int, float]:
    """Find the cut where tangents and cotangents together cost least.

    Args:
        costs: Measured cost of a token row, for this model on this machine.
        sources: Positions to attribute to.
        total: Number of ids.
        response: Number of response tokens.
        fits: For each cut, whether it fits in memory; by default all cuts fit.

    Returns:
        The cut, at or after the first source, and its cost, which is infinite if no cut fits.

    Example:
        >>> best_cut(UNMEASURED, range(128), 192, 64)  # about as many positions as there are response tokens
        (63, 8192.0)
    """
    tangent_rows, cotangent_rows = carried(sources, total, response)  # [total] each
    time = costs.forward_row * tangent_rows + costs.reverse_row * cotangent_rows
    time = time + costs.forward_fixed * (tangent_rows > 0) + costs.reverse_fixed * (cotangent_rows > 0)
    if fits is not None:
        time = np.where(fits, time, np.inf)
    start = min(sources, default=0)  # an earlier cut would add rows that no source needs
    cut = start + int(time[start:].argmin())
    return cut, float(time[cut])


def cheapest(
    costs: Costs,
    sources: Sequence[int],
    total: int,
    response: int,
    written_out: bool = False,
    fits: Bool[np.ndarray, " total"] | None = None,
    without: Collection[str] = (),
) -> str:
    """Return the mode that costs least: ``forward``, ``reverse`` or ``mixed``.

    Args:
        costs: Measured cost of a token row, for this model on this machine.
        sources: Positions to attribute to.
        total: Number of ids.
        response: Number of response tokens.
        written_out: Whether the derivatives are hand-written.
        fits: For each cut of ``mixed``, whether it fits in memory; by default all cuts fit.
        without: Modes to leave out.

    Example:
        >>> for prompt, response in ((2, 300), (300, 2), (100, 100)):
        ...     total = prompt + response
        ...     print(cheapest(Costs(1.0, 1.0, 500.0, 500.0), range(prompt), total, response))
        forward
        reverse
        mixed
    """
    rows = {mode: token_rows(mode, sources, total, response, written_out) for mode in ("forward", "reverse")}
    times = {
        "forward": costs.forward_fixed + costs.forward_row * rows["forward"],
        "reverse": costs.reverse_fixed + costs.reverse_row * rows["reverse"],
        "mixed": best_cut(costs, sources, total, response, fits)[1],
    }
    # Of equal times the first wins: a cut at either end is the same as forward or reverse mode.
    return min((mode for mode in times if mode not in without), key=times.__getitem__)
