"""Compares pass rates of the same prompts under two conditions: intervals, difference, and McNemar's test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats
from statsmodels.stats.proportion import proportion_confint

Interval = tuple[float, float]
_Z95 = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class RateChange:
    """Change of a pass rate on the same prompts.

    Args:
        n: Number of prompts.
        before: Rate before.
        before_ci: 95 % interval of ``before`` (Wilson).
        after: Rate after.
        after_ci: 95 % interval of ``after`` (Wilson).
        gained: Number of prompts that passed only after.
        lost: Number of prompts that passed only before.
        difference: ``after - before``.
        difference_ci: 95 % interval of ``difference`` for paired rates, see :func:`paired_interval`.
        p: p-value of McNemar's exact test, two-sided; 1 if no prompt changed.
    """

    n: int
    before: float
    before_ci: Interval
    after: float
    after_ci: Interval
    gained: int
    lost: int
    difference: float
    difference_ci: Interval
    p: float

    def to_dict(self) -> dict[str, Any]:
        """Convert the numbers to plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def wilson(passed: int, n: int) -> Interval:
    """Compute the 95 % interval of a rate (Wilson 1927), as in statsmodels.

    Args:
        passed: Number of prompts that passed.
        n: Number of prompts.

    Example:
        >>> [round(bound, 3) for bound in wilson(0, 10)]
        [0.0, 0.278]
    """
    low, high = proportion_confint(passed, n, method="wilson")
    # The bounds 0 and 1 are exact here; statsmodels misses them by the rounding of a square root.
    return (float(low) if passed else 0.0), (float(high) if passed < n else 1.0)


def paired_interval(gained: int, lost: int, n: int) -> Interval:
    """Compute the 95 % interval of the difference of two paired rates.

    Source: Bonett & Price 2012, the adjusted Wald interval (one half prompt is added to each of the four cells),
    which keeps its coverage in small samples and if no prompt changed.

    Args:
        gained: Number of prompts that passed only under the second condition.
        lost: Number of prompts that passed only under the first condition.
        n: Number of prompts.

    Example:
        >>> [round(bound, 3) for bound in paired_interval(0, 0, 34)]
        [-0.077, 0.077]
    """
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = _Z95 * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(up - down - half, -1.0), min(up - down + half, 1.0)


def rate_change(before: Sequence[bool], after: Sequence[bool]) -> RateChange:
    """Compare two rates on the same prompts.

    Args:
        before: [prompts] Whether each prompt passed before.
        after: [prompts] Whether each prompt passed after, in the same order.

    Raises:
        ValueError: There are no prompts, or the lengths differ.

    Source:
        McNemar 1947. The exact form: by chance, half of the changed prompts would have been gained.

    Example:
        >>> change = rate_change([False] * 6 + [True], [True] * 6 + [True])
        >>> change.gained, change.lost, change.p
        (6, 0, 0.03125)
    """
    n = len(before)
    if n == 0 or n != len(after):
        raise ValueError(f"expected as many results before as after, at least one; got {n} and {len(after)}")
    passed_before, passed_after = sum(before), sum(after)
    gained = sum(late and not early for early, late in zip(before, after, strict=True))
    lost = sum(early and not late for early, late in zip(before, after, strict=True))
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return RateChange(
        n, passed_before / n, wilson(passed_before, n), passed_after / n, wilson(passed_after, n), gained, lost,
        (passed_after - passed_before) / n, paired_interval(gained, lost, n), p,
    )  # fmt: skip
