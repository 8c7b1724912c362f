"""What every method of attribution answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from shiftlens.attribution.engine import Engine, Explained
from shiftlens.attribution.plan.row_counts import carried
from shiftlens.support.marked import numbers_of
from shiftlens.support.setting_rules import Rule


class Method(ABC):
    """A way to measure how much each source token matters for each response token.

    A subclass with settings is a frozen dataclass whose fields are made by ``numeric`` or ``costs_only`` of
    :mod:`shiftlens.support.marked`.
    """

    name: ClassVar[str]
    """Stable name, kept with each row of the ledger."""
    form: ClassVar[str] = "ratio"
    """What the values are where the target is a probability: ``ratio``, importance divided by p(y); or ``loss``,
    what log p(y) loses, from which what p(y) loses follows. For other targets they are the importance itself."""
    shares: ClassVar[bool] = False
    """Whether the targets probability and log_probability have the same values, so that one row serves both."""
    exact: ClassVar[bool] = False
    """Whether the values are what removing a token changes, not an estimate of it."""
    rules: ClassVar[Mapping[str, Rule]] = {}
    """What the settings may be, by name."""
    jointly: ClassVar[bool] = False
    """Whether the importance of a word or sentence is more than the sum over its tokens: :meth:`explain_units`."""

    def logarithmic(self, target: str) -> bool:
        """Return whether the values of a target add up in log p(y), so that those of two models may be subtracted.

        Args:
            target: What is explained, one of :data:`~shiftlens.attribution.targets.TARGETS`.

        Example:
            >>> from shiftlens.attribution.methods import Ablation, Gradient
            >>> Gradient().logarithmic("probability"), Ablation().logarithmic("probability")
            (True, True)
        """
        return target != "probability" or self.form == "loss" or self.shares

    @property
    @abstractmethod
    def words(self) -> str:
        """What a finding calls the method."""

    @property
    def label(self) -> str:
        """Name in tables and names of findings: that of the method, with the settings that are not the usual ones.

        Example:
            >>> from shiftlens.attribution.methods import Ablation, Gradient
            >>> Gradient().label, Ablation("mean").label
            ('gradient', 'ablation_mean')
        """
        usual: dict[str, Any] = {each.name: each.default for each in fields(self)} if is_dataclass(self) else {}
        changed = [getattr(self, name) for name, value in usual.items() if getattr(self, name) != value]
        return "_".join(map(str, (self.name, *changed)))

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
            [sources, M] numbers on the CPU, in the form that :attr:`form` names.
        """

    def token_rows(self, units: Sequence[Sequence[int]], total: int, response: int) -> int:
        """Count the token rows of :meth:`explain` in each layer: one derivative, or one text, at one position.

        By default those of the gradient: tangents and cotangents that meet at the best cut.

        Args:
            units: Positions to attribute to, one unit each; a method for which units are not removed jointly
                attributes to each of their tokens.
            total: Number of ids, with the response at the end.
            response: Number of response tokens.
        """
        if response == 0:
            return 0
        tangent_rows, cotangent_rows = carried([place for unit in units for place in unit], total, response)
        return int((tangent_rows + cotangent_rows).min())

    def output_rows(self, units: int, response: int) -> int:
        """Count the rows that :meth:`explain` takes through the output layer; by default, forward and back once.

        Args:
            units: Number of units.
            response: Number of response tokens.
        """
        return 2 * response

    def explain_units(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        units: Sequence[Sequence[int]],
        response: int,
        engine: Engine,
    ) -> Explained:
        """Explain every token of a response by units of several tokens each; by default the sum over the tokens.

        Args:
            model: Causal language model with frozen parameters.
            input_ids: [total] Ids fed; the last ``response`` of them are the response.
            units: [units] Positions of each unit's tokens.
            response: Number of response tokens M.
            engine: Target, memory budget and mode.

        Returns:
            [units, M] numbers, as :meth:`explain` returns them.
        """
        explained = self.explain(model, input_ids, [place for unit in units for place in unit], response, engine)
        of = torch.tensor([i for i, unit in enumerate(units) for _ in unit], dtype=torch.long)
        sums = explained.values.new_zeros(len(units), response).index_add_(0, of, explained.values)
        return replace(explained, values=sums)


class OnePass(Method):
    """A method that reads the text in one ordinary pass and carries nothing through the model."""

    def token_rows(self, units: Sequence[Sequence[int]], total: int, response: int) -> int:
        """Return 0: the text is only read."""
        return 0

    def output_rows(self, units: int, response: int) -> int:
        """Count a row for each response token."""
        return response
