"""Runs a model on a text without some of its tokens, in packs of suffixes or on one whole text after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.removal.packed_attention import Pack, packed, rows_of
from shiftlens.attribution.removal.readout import Readout, measure, read
from shiftlens.attribution.removal.suffixes import Suffix, packs_of, suffix_of
from shiftlens.hooks import HeadTap

ROWS = {"cpu": 512, "cuda": 8192}
"""Rows of a pack, per device type; larger packs are not faster."""


@dataclass(frozen=True)
class Text:
    """A text and what takes the place of its tokens.

    Args:
        ids: [total] All ids, on the model's device; the last ones are the response.
        response: Number of response tokens.
        target: ``log_probability`` or ``logit_difference``.
        vector: [width] Embedding that takes the place of a removed one.
        foils: [response] Ids that ``logit_difference`` subtracts the logits of; ``None`` for the strongest others.
    """

    ids: Int[Tensor, " total"]
    response: int
    target: str
    vector: Float[Tensor, " width"]
    foils: Int[Tensor, " response"] | None = None

    def read(self, logits: Float[Tensor, "response vocab"]) -> Readout:
        """Read the unchanged text off its logits, which are overwritten."""
        return read(logits, self.ids[-self.response :].to(logits.device), self.target, self.foils)

    def after(
        self, logits: Float[Tensor, "affected vocab"], before: Readout, suffixes: Sequence[Suffix]
    ) -> Float[Tensor, " affected"]:
        """Read the target of the affected response tokens off logits of changed texts, which are overwritten."""
        columns = _columns(suffixes).to(logits.device)
        wanted = self.ids[-self.response :].to(logits.device)
        return measure(logits, wanted[columns], before.foil[columns], self.target)


@torch.no_grad()
def packed_losses(
    model: PreTrainedModel, text: Text, suffixes: Sequence[Suffix], units: int, chunk: int
) -> tuple[Float[Tensor, "units response"], Readout]:
    """Compute what each response token loses without each unit, in packs of suffixes.

    Args:
        model: Causal language model.
        text: The text.
        suffixes: What changes without each unit; units without any lose nothing.
        units: Number of units.
        chunk: Maximum number of suffixes in a pack.

    Returns:
        Losses, [units, response], and how the model reads the unchanged text.

    Raises:
        NotImplementedError: The model's attention cannot be packed; models that do not take positions, or use ids
            again, raise errors of their own or return other numbers.
    """
    embeddings = model.get_input_embeddings()(text.ids[:-1])  # [length, width]
    everything = [suffix_of(0, (), len(embeddings), text.response, delete=False)]
    pack = Pack(everything, None, embeddings.device)
    before = text.read(_packed_logits(model, pack, embeddings, everything))
    losses, kept = before.value.new_zeros(units, text.response), pack.layers
    for some in packs_of(suffixes, chunk, ROWS.get(embeddings.device.type, ROWS["cpu"])):
        tokens, removed = (
            torch.from_numpy(np.concatenate(arrays)).to(embeddings.device)
            for arrays in zip(*((suffix.tokens, suffix.removed) for suffix in some), strict=True)
        )
        changed = embeddings[tokens]  # [rows, width]
        changed[removed] = text.vector.to(changed)
        logits = _packed_logits(model, Pack(some, kept, embeddings.device), changed, some)
        _store(losses, before, text.after(logits, before, some), some)
    return losses, before


@torch.no_grad()
def whole_losses(
    model: PreTrainedModel, text: Text, suffixes: Sequence[Suffix], units: int
) -> tuple[Float[Tensor, "units response"], Readout]:
    """Compute the same from one whole forward pass for each unit, with the model's own attention.

    Args:
        model: Causal language model of any family.
        text: The text.
        suffixes: What changes without each unit, from the first position of the text on.
        units: Number of units.
    """
    (everything,) = [suffix_of(0, (), len(text.ids) - 1, text.response, delete=False)]
    before = text.read(_whole_logits(model, text, everything))
    losses = before.value.new_zeros(units, text.response)
    for suffix in suffixes:
        _store(losses, before, text.after(_whole_logits(model, text, suffix), before, [suffix]), [suffix])
    return losses, before


def _packed_logits(
    model: PreTrainedModel, pack: Pack, embeddings: Float[Tensor, "rows width"], suffixes: Sequence[Suffix]
) -> Float[Tensor, "affected vocab"]:
    """Return the logits that predict the affected response tokens of a pack."""
    keep = torch.from_numpy(rows_of(suffixes)).to(embeddings.device)
    with packed(model, pack):
        return _logits(
            model,
            inputs_embeds=embeddings[None],
            position_ids=pack.position,
            # With a mask of ones no boundaries of texts are looked for in the positions.
            attention_mask=torch.ones_like(pack.position),
            logits_to_keep=keep,
        )


def _whole_logits(model: PreTrainedModel, text: Text, suffix: Suffix) -> Float[Tensor, "affected vocab"]:
    first = int(suffix.rows.min())
    ids = text.ids[torch.from_numpy(suffix.tokens).to(text.ids.device)]
    with _replaced(model, torch.from_numpy(suffix.removed), text.vector):
        logits = _logits(model, input_ids=ids[None], logits_to_keep=len(ids) - first)  # [last positions, vocab]
    return logits[torch.from_numpy(suffix.rows - first).to(logits.device)]


def _logits(model: PreTrainedModel, **inputs: Any) -> Float[Tensor, "rows vocab"]:
    """Run a model on one text; logits are at least float32 where the output layer is linear."""
    with HeadTap(model):
        logits: Tensor = model(**inputs, use_cache=False).logits[0]
    return logits.detach()


@contextmanager
def _replaced(model: PreTrainedModel, removed: Tensor, vector: Tensor) -> Iterator[None]:
    """Replace the embeddings at some positions, [positions] of booleans."""

    def replace(_module: object, _args: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, removed.to(output.device)] = vector.to(output)
        return output

    handle = model.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _columns(suffixes: Sequence[Suffix]) -> Int[Tensor, " affected"]:
    return torch.from_numpy(np.concatenate([suffix.columns for suffix in suffixes]))


def _store(losses: Tensor, before: Readout, after: Tensor, suffixes: Sequence[Suffix]) -> None:
    """Write the losses of some units, [affected] values after their removal."""
    columns = _columns(suffixes).to(losses.device)
    counts = [len(suffix.columns) for suffix in suffixes]
    unit = torch.from_numpy(np.array([suffix.unit for suffix in suffixes]).repeat(counts)).to(losses.device)
    losses[unit, columns] = before.value[columns] - after
