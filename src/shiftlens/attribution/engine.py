"""Chooses and runs an attribution engine.

All engines return the same numbers and differ in time and memory.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.llama.layer import takes
from shiftlens.attribution.llama.packing import COUNT
from shiftlens.attribution.modes.forward import forward
from shiftlens.attribution.modes.lrp_rules import check_rules
from shiftlens.attribution.modes.mixed import mixed
from shiftlens.attribution.modes.naive import naive
from shiftlens.attribution.modes.plain_attention import check_plain
from shiftlens.attribution.modes.reverse import reverse
from shiftlens.attribution.plan.cost import REFUSALS, UNMEASURED, Costs, best_cut, cheapest
from shiftlens.attribution.plan.memory import (
    MOST,
    MOST_WRITTEN_OUT,
    Need,
    budget_bytes,
    halving,
    is_out_of_memory,
    kept,
    need,
)
from shiftlens.attribution.targets import TARGETS, Reading, check_places, stored
from shiftlens.attribution.variant import PLAIN, Variant
from shiftlens.errors import ShiftLensError
from shiftlens.support.marked import costs_only, numbers_of, numeric

log = logging.getLogger(__name__)

MODES = ("auto", "reverse", "forward", "mixed", "naive")
_ENGINES: dict[str, Callable[..., Any]] = {"forward": forward, "reverse": reverse, "mixed": mixed, "naive": naive}
_OTHERS = {"mixed": ("forward", "reverse"), "forward": ("reverse",), "reverse": ("forward",)}
"""Fallback order when a mode runs out of memory or does not support the model."""
_REFUSED: weakref.WeakKeyDictionary[PreTrainedModel, set[str]] = weakref.WeakKeyDictionary()
"""Per model: modes that failed although another mode worked."""


@dataclass(frozen=True)
class Explained:
    """A response explained. N sources, M response tokens.

    Args:
        values: [N, M] attributions, on the CPU; for the gradient ``<d f(y_m) / d E[s_n], E[s_n]>``, with f = log p
            for the target probability.
        reading: how the model reads the response, on the CPU.
        mode: the engine that did it; ``none`` for an empty response.
        residual: [M] what the attributions of all sources together miss of the difference that they divide up;
            ``None`` for methods that divide up none.
    """

    values: Float[Tensor, "sources response"]
    reading: Reading
    mode: str
    residual: Float[Tensor, " response"] | None = None


@dataclass(frozen=True)
class Engine:
    """How responses are explained. Every choice but the target changes time and memory, not numbers.

    Args:
        mode: one of :data:`MODES`; ``auto`` is the cheapest one for each response.
        chunk: derivatives carried through the model at once; ``None`` is as many as the budget allows.
        target: what is differentiated, one of :data:`~shiftlens.attribution.targets.TARGETS`.
        memory_budget: share of free memory or bytes, see :func:`~shiftlens.attribution.plan.memory.parse_budget`.
        costs: Measured cost of a token row, for this model on this machine.
        foils: ids whose logits the target logit_difference subtracts, one for each response token or one for all;
            ``None`` for the strongest other token, which also stands in for a foil that is the response token.

    Raises:
        ValueError: the mode or target is unknown, or there are foils for a target that has none.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> found = Engine("forward").explain(LlamaForCausalLM(config), [1, 2, 3, 4], [0, 1], 2)
        >>> found.values.shape, found.mode
        (torch.Size([2, 2]), 'forward')
    """

    mode: str = costs_only("auto")
    chunk: int | None = costs_only(None)
    target: str = numeric("probability")
    memory_budget: float | int = costs_only(0.5)
    costs: Costs = costs_only(UNMEASURED)
    foils: tuple[int, ...] | None = numeric(None)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"saliency.mode={self.mode}: expected one of {', '.join(MODES)}")
        stored(self.target)
        if self.foils is not None and self.target != "logit_difference":
            raise ValueError(f"foils are for the target logit_difference, not {self.target}")

    def contrast(self, response: int) -> Int[Tensor, " response"] | None:
        """Return the foil of each response token, ``None`` for the strongest other ones.

        Args:
            response: number of response tokens.

        Raises:
            RuntimeError: there are several foils, but not as many as response tokens.

        Example:
            >>> Engine(target="logit_difference", foils=(7,)).contrast(3)
            tensor([7, 7, 7])
        """
        return None if self.foils is None else torch.tensor(self.foils).expand(response)

    def identity(self) -> dict[str, Any]:
        """The settings on which the numbers depend, as plain values; part of the ledger key.

        Example:
            >>> Engine("reverse", chunk=2).identity()
            {'target': 'log_probability'}
        """
        numbers = {name: value for name, value in numbers_of(self).items() if value is not None}
        return {**numbers, "target": stored(self.target)}

    def explain(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        sources: Sequence[int],
        response: int,
        variant: Variant = PLAIN,
    ) -> Explained:
        """Explain one response exactly.

        Args:
            model: causal language model with frozen parameters.
            input_ids: [total] ids fed; the last ``response`` of them are the response.
            sources: [sources] positions to attribute to, prompt or response; all before the last token.
            response: number of response tokens M; 0 gives an empty result.
            variant: what is carried through the model: its derivative, or another linear reading of it.

        Raises:
            ValueError: a source or ``response`` is out of range.
            ShiftLensError: not even one derivative at a time fits in memory, or, but for ``naive``, the model
                is not itself in plain attention, see
                :func:`~shiftlens.attribution.modes.plain_attention.check_plain`; or AttnLRP has no rules for it,
                see :func:`~shiftlens.attribution.modes.lrp_rules.check_rules`.
        """
        if response == 0:
            empty = Reading(torch.zeros(0), torch.zeros(0, dtype=torch.long))
            return Explained(torch.zeros(len(sources), 0), empty, "none")
        check_places(len(input_ids), sources, response, 1 if self.chunk is None else self.chunk)
        mode = self.choose(model, sources, len(input_ids), response)
        if variant.lrp:
            check_rules(model)
        if mode != "naive" or variant.lrp:
            check_plain(model, len(input_ids))
        ways, refused = (mode, *_OTHERS[mode]) if self.mode == "auto" else (mode,), set()
        for way, other in zip(ways, (*ways[1:], None), strict=True):
            try:
                explained = self._run(way, model, input_ids, sources, response, variant)
            except ShiftLensError:
                if other is None:
                    raise
                log.warning("%s mode ran out of memory; trying %s", way, other)
            except REFUSALS as error:
                if other is None or is_out_of_memory(error):
                    raise
                log.warning("%s mode cannot take this model (%s); taking %s", way, error, other)
                refused.add(way)
            else:
                if refused:  # if every mode fails, the fault is the input's: remember nothing
                    _REFUSED.setdefault(model, set()).update(refused)
                return explained
        raise AssertionError("the last way returns or raises")

    def choose(self, model: PreTrainedModel, sources: Sequence[int], total: int, response: int) -> str:
        """The engine for a text: the cheapest one, or the leanest where the others do not fit.

        Without sources there is nothing to explain, and forward mode's one ordinary pass reads the response.

        Args:
            model: the model.
            sources: positions attributed to.
            total: number of ids.
            response: number of response tokens.
        """
        if not len(sources):
            return "forward"
        if self.mode != "auto":
            return self.mode
        if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
            return "reverse"  # gradients cross devices by themselves
        refused = _REFUSED.get(model, set())
        budget, cuts = self._kept(model, sources, total, response)
        mode = cheapest(
            self.costs, sources, total, response, takes(model, total), cuts <= budget, refused - {"reverse"}
        )
        if mode == "reverse" and "forward" not in refused:
            some = self._need(mode, model, total, response)
            if some.fixed + some.each > budget_bytes(self.memory_budget, model):
                return "forward"
        return mode

    def _need(self, mode: str, model: PreTrainedModel, total: int, response: int) -> Need:
        config = model.config.get_text_config()
        return need(config, model.dtype.itemsize, mode, total, response, takes(model, total))

    def _most(self, model: PreTrainedModel, total: int) -> int:
        """Most derivatives at once where memory allows more."""
        return MOST_WRITTEN_OUT if takes(model, total) else MOST.get(model.device.type, MOST["cpu"])

    def _kept(
        self, model: PreTrainedModel, sources: Sequence[int], total: int, response: int
    ) -> tuple[float, Int[np.ndarray, " total"]]:
        """Bytes that mixed mode may keep at a cut, half of what the budget leaves, and would keep at every cut."""
        some, by_hand = self._need("mixed", model, total, response), takes(model, total)
        config, itemsize = model.config.get_text_config(), model.dtype.itemsize
        together = COUNT if by_hand else self.chunk or self._most(model, total)
        left = budget_bytes(self.memory_budget, model) - some.fixed
        return (left / 2 if left > some.each else -1.0), kept(config, itemsize, sources, total, by_hand, together)

    def _run(
        self,
        mode: str,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        sources: Sequence[int],
        response: int,
        variant: Variant,
    ) -> Explained:
        total, budget = len(input_ids), budget_bytes(self.memory_budget, model)
        if variant.foils is None:
            variant = replace(variant, foils=self.contrast(response))
        run = partial(_ENGINES[mode], variant=variant)
        if mode == "mixed":
            room, cuts = self._kept(model, sources, total, response)
            cut, _ = best_cut(self.costs, sources, total, response, cuts <= room)
            run, budget = partial(run, cut=cut), budget - int(cuts[cut])
        chunk = 1 if mode == "naive" else self.chunk
        if chunk is None:
            chunk = self._need(mode, model, total, response).chunk(budget, self._most(model, total))
        ids, places = torch.tensor(input_ids), torch.tensor(sources, dtype=torch.long)
        values, reading = halving(lambda size: run(model, ids, places, response, size, stored(self.target)), chunk)
        return Explained(values.cpu(), Reading(*(each.cpu() for each in reading)), mode)


__all__ = ["MODES", "TARGETS", "Engine", "Explained"]
