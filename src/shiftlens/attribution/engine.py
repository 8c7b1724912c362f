"""The seam behind which attribution engines live: same numbers, different cost."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.attention import check_plain
from shiftlens.attribution.cost import REFUSALS, UNMEASURED, Costs, best_cut, cheapest
from shiftlens.attribution.forward import forward
from shiftlens.attribution.llama_layer import takes
from shiftlens.attribution.memory import (
    MOST,
    MOST_WRITTEN_OUT,
    Need,
    budget_bytes,
    crossing_bytes,
    halving,
    is_out_of_memory,
    need,
)
from shiftlens.attribution.mixed import mixed
from shiftlens.attribution.naive import naive
from shiftlens.attribution.reverse import reverse
from shiftlens.attribution.targets import TARGETS, Reading, check_places, stored
from shiftlens.errors import ShiftLensError

log = logging.getLogger(__name__)

MODES = ("auto", "reverse", "forward", "mixed", "naive")
_ENGINES: dict[str, Callable[..., Any]] = {"forward": forward, "reverse": reverse, "mixed": mixed, "naive": naive}
_NO_FORWARD: weakref.WeakSet[PreTrainedModel] = weakref.WeakSet()
"""Models that forward mode, and with it mixed mode, was found not to take."""


@dataclass(frozen=True)
class Explained:
    """A response explained. N sources, M response tokens.

    Args:
        gradient: [N, M] ``<d f(y_m) / d E[s_n], E[s_n]>``, on the CPU; f is log p for the target probability.
        reading: how the model reads the response, on the CPU.
        mode: the engine that did it; ``none`` for an empty response.
    """

    gradient: Float[Tensor, "sources response"]
    reading: Reading
    mode: str


@dataclass(frozen=True)
class Engine:
    """How responses are explained. Every choice but the target changes time and memory, not numbers.

    Args:
        mode: one of :data:`MODES`; ``auto`` is the cheapest one for each response.
        chunk: derivatives carried through the model at once; ``None`` is as many as the budget allows.
        target: what is differentiated, one of :data:`~shiftlens.attribution.targets.TARGETS`.
        memory_budget: share of free memory or bytes, see :func:`~shiftlens.attribution.memory.parse_budget`.
        costs: of this model on this machine.

    Raises:
        ValueError: the mode or target is unknown.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> found = Engine("forward").explain(LlamaForCausalLM(config), [1, 2, 3, 4], [0, 1], 2)
        >>> found.gradient.shape, found.mode
        (torch.Size([2, 2]), 'forward')
    """

    mode: str = "auto"
    chunk: int | None = None
    target: str = "probability"
    memory_budget: float | int = 0.5
    costs: Costs = UNMEASURED

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"saliency.mode={self.mode}: expected one of {', '.join(MODES)}")
        stored(self.target)

    def explain(
        self, model: PreTrainedModel, input_ids: Sequence[int], sources: Sequence[int], response: int
    ) -> Explained:
        """Explain one response exactly.

        Args:
            model: causal language model with frozen parameters.
            input_ids: [total] ids fed; the last ``response`` of them are the response.
            sources: [sources] positions to attribute to, prompt or response; all before the last token.
            response: number of response tokens M; 0 gives an empty result.

        Raises:
            ValueError: a source or ``response`` is out of range.
            ShiftLensError: not even one derivative at a time fits in memory, or, but for ``naive``, the model
                is not itself in plain attention, see :func:`~shiftlens.attribution.attention.check_plain`.
        """
        if response == 0:
            empty = Reading(torch.zeros(0), torch.zeros(0, dtype=torch.long))
            return Explained(torch.zeros(len(sources), 0), empty, "none")
        check_places(len(input_ids), sources, response, 1 if self.chunk is None else self.chunk)
        mode = self.choose(model, sources, len(input_ids), response)
        if mode != "naive":
            check_plain(model, len(input_ids))
        other, refused = "reverse" if mode == "forward" else "forward", False
        try:
            return self._run(mode, model, input_ids, sources, response)
        except ShiftLensError:
            if self.mode != "auto":
                raise
            log.warning("%s mode ran out of memory; trying %s", mode, other)
        except REFUSALS as error:
            if is_out_of_memory(error) or self.mode != "auto":
                raise
            other = "forward" if mode == "reverse" else "reverse"
            log.warning("%s mode cannot take this model (%s); taking %s", mode, error, other)
            refused = mode != "reverse"
        found = self._run(other, model, input_ids, sources, response)
        if refused:  # what reverse cannot take either says nothing about forward mode
            _NO_FORWARD.add(model)
        return found

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
        if model in _NO_FORWARD:
            return "reverse"
        room = self._room(model, total, response)
        mode = cheapest(self.costs, sources, total, response, takes(model, total), room)
        if mode == "reverse":
            bytes_needed = self._need(mode, model, total, response)
            if bytes_needed.fixed + bytes_needed.each > budget_bytes(self.memory_budget, model):
                return "forward"
        return mode

    def _need(self, mode: str, model: PreTrainedModel, total: int, response: int) -> Need:
        config = model.config.get_text_config()
        return need(config, model.dtype.itemsize, mode, total, response, takes(model, total))

    def _room(self, model: PreTrainedModel, total: int, response: int) -> float:
        """Rows of keys and values whose tangents mixed mode may keep: half of what the budget leaves."""
        left = budget_bytes(self.memory_budget, model) - self._need("mixed", model, total, response).fixed
        return max(left, 0) / 2 / crossing_bytes(model.config.get_text_config(), model.dtype.itemsize)

    def _run(
        self, mode: str, model: PreTrainedModel, input_ids: Sequence[int], sources: Sequence[int], response: int
    ) -> Explained:
        run, total, budget = _ENGINES[mode], len(input_ids), budget_bytes(self.memory_budget, model)
        if mode == "mixed":
            room, by_hand = self._room(model, total, response), takes(model, total)
            cut, _ = best_cut(self.costs, sources, total, response, by_hand, room)
            run, budget = partial(run, cut=cut), budget // 2  # the other half is for what is kept at the cut
        chunk = 1 if mode == "naive" else self.chunk
        if chunk is None:
            bytes_needed = self._need(mode, model, total, response)
            most = MOST.get(model.device.type, MOST["cpu"])
            if takes(model, total):
                most = MOST_WRITTEN_OUT
            chunk = bytes_needed.chunk(budget, most)
        ids, places = torch.tensor(input_ids), torch.tensor(sources, dtype=torch.long)
        gradient, reading = halving(
            lambda size: run(model, ids, places, response, size, stored(self.target)), chunk
        )
        return Explained(gradient.cpu(), Reading(*(values.cpu() for values in reading)), mode)


__all__ = ["MODES", "TARGETS", "Engine", "Explained"]
