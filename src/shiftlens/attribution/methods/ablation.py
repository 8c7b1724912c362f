"""Exact removal: what a response loses without a token, see :mod:`shiftlens.attribution.removal`.

Gradient x embedding is the first-order estimate of this difference (paper, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from shiftlens.attribution.engine import Engine, Explained
from shiftlens.attribution.methods.method import Method
from shiftlens.attribution.removal import REMOVALS, removal
from shiftlens.errors import ConfigError
from shiftlens.support.marked import numeric
from shiftlens.support.setting_rules import Choice, Number, Rule

_WORDS = {
    "zero": "zero embedding",
    "mean": "mean embedding",
    "delete": "token deleted",
    "neutral": "neutral token",
}


@dataclass(frozen=True)
class Ablation(Method):
    """Exact difference that removing one token or unit at a time makes, see :func:`removal`.

    Args:
        by: How a token is removed, one of :data:`REMOVALS`.
        neutral: Id of the token that takes the place of another one with ``by=neutral``; ``None`` for the token
            whose embedding is nearest to the mean embedding.

    Raises:
        ConfigError: ``by`` is unknown, or ``neutral`` is given without ``by=neutral``.

    Example:
        >>> Ablation("delete").words
        'exact removal (token deleted)'
    """

    name = "ablation"
    rules: ClassVar[Mapping[str, Rule]] = {"by": Choice(REMOVALS), "neutral": Number(0, optional=True)}
    form = "loss"
    exact = True
    jointly = True
    by: str = numeric("zero")
    neutral: int | None = numeric(None)

    def __post_init__(self) -> None:
        if self.by not in REMOVALS:
            raise ConfigError(f"saliency.ablation.by={self.by}: expected one of {', '.join(REMOVALS)}")
        if self.neutral is not None and self.by != "neutral":
            raise ConfigError(f"saliency.ablation.neutral={self.neutral}: only with by=neutral, not by={self.by}")

    @property
    def words(self) -> str:
        """What a finding calls the method."""
        return f"exact removal ({_WORDS[self.by]})"

    def token_rows(self, units: Sequence[Sequence[int]], total: int, response: int) -> int:
        """Count the positions from the first removed one on, for each unit: ``N (N / 2 + M)`` token by token.

        Example:
            >>> Ablation().token_rows([[0], [1], [2]], 6, 3)
            12
        """
        return sum(total - 1 - min(unit) for unit in units) if response else 0

    def output_rows(self, units: int, response: int) -> int:
        """Count a row for each response token, with and without each unit."""
        return (units + 1) * response

    def explain(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        sources: Sequence[int],
        response: int,
        engine: Engine,
    ) -> Explained:
        """Remove each source in turn."""
        return self.explain_units(model, input_ids, [[source] for source in sources], response, engine)

    def explain_units(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        units: Sequence[Sequence[int]],
        response: int,
        engine: Engine,
    ) -> Explained:
        """Remove all tokens of each unit at once."""
        return removal(model, input_ids, units, response, engine, self.by, self.neutral)
