"""Computes what every response token loses without each of some units of the text, exactly.

Only positions from the first removed one on change, see :mod:`~shiftlens.attribution.removal.suffixes`. For N
prompt tokens removed one by one, followed by M response tokens, these are N (N/2 + M) token rows, where the
gradient carries at least N M. Models that cannot be run in packs of suffixes run each changed text as a whole.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from shiftlens.attribution.engine import Engine, Explained
from shiftlens.attribution.modes.plain_attention import changing_rotations
from shiftlens.attribution.plan.cost import REFUSALS
from shiftlens.attribution.plan.memory import budget_bytes, halving, is_out_of_memory, need
from shiftlens.attribution.removal.replacements import replacement
from shiftlens.attribution.removal.runs import Text, packed_losses, whole_losses
from shiftlens.attribution.removal.suffixes import REMOVALS, Suffix, suffix_of
from shiftlens.attribution.targets import Reading, check_places, stored

log = logging.getLogger(__name__)

MOST = 1024
"""Maximum number of suffixes in a pack."""
_PACKED: weakref.WeakKeyDictionary[PreTrainedModel, bool] = weakref.WeakKeyDictionary()
"""Whether a model can be run in packs of suffixes."""
_PROBE = 16  # ids fed to compare packs with whole texts


def removal(
    model: PreTrainedModel,
    input_ids: Sequence[int],
    units: Sequence[Sequence[int]],
    response: int,
    engine: Engine,
    by: str = "zero",
    neutral: int | None = None,
) -> Explained:
    """Compute ``log p(y_m | Z_m) - log p(y_m | Z_m without unit n)`` for all units and response tokens.

    Z_m is the text before response token y_m (paper, section 3.1). For the target ``logit_difference``, it is what
    the logit of y_m, minus that of the strongest other token of the unchanged text, loses.

    Args:
        model: Causal language model of any family, in evaluation mode.
        input_ids: [total] Ids fed; the last ``response`` of them are the response.
        units: [units] Positions of the tokens that are removed together, in any order and number; all before the
            last token. A unit without a position loses nothing.
        response: Number of response tokens M; 0 gives an empty result.
        engine: Its target, chunk (number of units computed together) and memory budget count.
        by: How a token is removed, one of :data:`~shiftlens.attribution.removal.suffixes.REMOVALS`.
        neutral: Id of the token that takes the place of another one with ``by=neutral``; ``None`` for the token
            whose embedding is nearest to the mean embedding.

    Returns:
        [units, M] losses in nats (or of logits), 0 for tokens that are predicted before the first removed one; how
        the model reads the response; and as mode ``packed`` or ``whole``.

    Raises:
        ValueError: ``by``, ``neutral``, ``response`` or a position is out of range, or a deletion leaves nothing
            before the response.
        ShiftLensError: Not even one changed text fits in memory.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> model = LlamaForCausalLM(config).eval()
        >>> removal(model, [1, 2, 3, 4], [[0], [0, 1], [2]], 2, Engine()).values.shape
        torch.Size([3, 2])
    """
    if by not in REMOVALS:
        raise ValueError(f"by={by}: expected one of {', '.join(REMOVALS)}")
    if response == 0:
        empty = Reading(torch.zeros(0), torch.zeros(0, dtype=torch.long))
        return Explained(torch.zeros(len(units), 0), empty, "none")
    places = [place for unit in units for place in unit]
    check_places(len(input_ids), places, response, 1 if engine.chunk is None else engine.chunk)
    ids = torch.tensor(input_ids, device=model.get_input_embeddings().weight.device)
    text = Text(ids, response, stored(engine.target), replacement(model, by, neutral), engine.contrast(response))
    packs = changing_rotations(model, len(input_ids)) is None and _takes_packs(model)
    suffixes = _suffixes(text, units, by == "delete", whole=not packs)
    if packs:
        fed = len(input_ids) - 1
        needed = need(model.config.get_text_config(), model.dtype.itemsize, "removal", fed, response, False)
        chunk = engine.chunk or needed.chunk(budget_bytes(engine.memory_budget, model), MOST)
        losses, before = halving(
            lambda size: packed_losses(model, text, suffixes, len(units), size), min(chunk, max(len(suffixes), 1))
        )
    else:
        losses, before = whole_losses(model, text, suffixes, len(units))
    reading = Reading(*(values.cpu() for values in before.reading))
    return Explained(losses.cpu(), reading, "packed" if packs else "whole")


def _suffixes(text: Text, units: Sequence[Sequence[int]], delete: bool, whole: bool) -> list[Suffix]:
    fed = len(text.ids) - 1
    return [
        suffix_of(i, unit, fed, text.response, delete, whole=whole) for i, unit in enumerate(units) if len(unit)
    ]


def _takes_packs(model: PreTrainedModel) -> bool:
    """Return whether a model computes the same in packs as on whole texts; compared once, on a few ids."""
    if model not in _PACKED:
        _PACKED[model] = False
        try:
            _PACKED[model] = all(_same(model, delete) for delete in (False, True))
        except REFUSALS as error:
            if is_out_of_memory(error):
                raise
            log.info("%s does not run in packs: %s", type(model).__name__, error)
        if not _PACKED[model]:
            log.warning("%s runs every text without a token as a whole, which takes longer", type(model).__name__)
    return _PACKED[model]


def _same(model: PreTrainedModel, delete: bool) -> bool:
    device = model.get_input_embeddings().weight.device
    ids = torch.arange(_PROBE, device=device) * 7 % min(model.config.get_text_config().vocab_size, 1000)
    text, units = Text(ids, _PROBE // 2, "log_probability", replacement(model, "zero")), [[3, 5], [1], [9]]
    found, _ = packed_losses(model, text, _suffixes(text, units, delete, whole=False), len(units), len(units))
    want, _ = whole_losses(model, text, _suffixes(text, units, delete, whole=True), len(units))
    tolerance = 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.3
    return bool((found - want).abs().max() <= tolerance * want.abs().max())
