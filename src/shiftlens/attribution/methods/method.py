"""What every method of attribution answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from transformers import PreTrainedModel

from shiftlens.attribution.engine import Engine, Explained
from shiftlens.support.marked import numbers_of


class Method(ABC):
    """A way to measure how much each source token matters for each response token.

    A subclass with settings is a frozen dataclass whose fields are made by ``numeric`` or ``costs_only`` of
    :mod:`shiftlens.support.marked`.
    """

    name: ClassVar[str]
    """Stable name, kept with each row of the ledger."""
    words: ClassVar[str]
    """What a finding calls the method."""

    def identity(self) -> dict[str, Any]:
        """Settings of the method on which its numbers depend, as plain JSON values.

        They are in the key of a row, beside the name of the method. By default they are the ``numeric`` fields of
        a dataclass.

        Raises:
            TypeError: The method has settings that are not marked; then it has to define this function.
        """
        return numbers_of(self)

    @abstractmethod
    def explain(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        sources: Sequence[int],
        response: int,
        engine: Engine,
    ) -> Explained:
        """Explain every token of a response by every source token.

        Args:
            model: Causal language model with frozen parameters.
            input_ids: [total] Ids fed; the last ``response`` of them are the response.
            sources: [sources] Positions to attribute to, all before the last token.
            response: Number of response tokens M; 0 gives an empty result.
            engine: Target, memory budget and mode.

        Returns:
            [sources, M] numbers on the CPU, in the units of the target's gradient: importance divided by p(y) for
            the target probability.
        """
