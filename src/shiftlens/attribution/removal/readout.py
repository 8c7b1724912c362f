"""Reads the target of each response token off logits, in blocks of rows that fit a CPU's cache."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from shiftlens.attribution.targets import Reading, at_logits

_BLOCK = 8  # rows of logits at once


class Readout(NamedTuple):
    """How a model reads the response in the unchanged text.

    Args:
        value: [response] the target.
        foil: [response] the token that y_m is held against, fixed where a text is changed.
        reading: Log probabilities and ranks.
    """

    value: Float[Tensor, " response"]
    foil: Int[Tensor, " response"]
    reading: Reading


def read(
    logits: Float[Tensor, "response vocab"],
    wanted: Int[Tensor, " response"],
    target: str,
    given: Int[Tensor, " response"] | None = None,
) -> Readout:
    """Read the unchanged text.

    Args:
        logits: [response, vocab] Logits that predict the response; they are overwritten.
        wanted: [response] Ids of the response.
        target: ``log_probability`` or ``logit_difference``.
        given: [response] Foils in place of the strongest other tokens, see
            :func:`~shiftlens.attribution.targets.at_logits`.
    """
    readings, foils = [], []
    for block, own in zip(logits.split(_BLOCK), wanted.split(_BLOCK), strict=True):
        readings.append(at_logits(block, own, "log_probability")[1])
        foils.append(block.scatter(1, own[:, None], -torch.inf).argmax(-1))
    foil = torch.cat(foils)
    if given is not None:
        given = given.to(foil.device)
        foil = torch.where(given == wanted, foil, given)
    reading = Reading(*map(torch.cat, zip(*readings, strict=True)))
    return Readout(measure(logits, wanted, foil, target), foil, reading)


def measure(
    logits: Float[Tensor, "rows vocab"], wanted: Int[Tensor, " rows"], foil: Int[Tensor, " rows"], target: str
) -> Float[Tensor, " rows"]:
    """Return the target at each row, at least float32.

    Args:
        logits: [rows, vocab] Logits; they are overwritten.
        wanted: [rows] Id of the response token that a row predicts.
        foil: [rows] Id of another token.
        target: ``log_probability``; or ``logit_difference``, the logit of ``wanted`` minus that of ``foil``.

    Example:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> measure(logits.clone(), torch.tensor([0]), torch.tensor([1]), "log_probability")
        tensor([-0.4076])
        >>> measure(logits, torch.tensor([0]), torch.tensor([1]), "logit_difference")
        tensor([1.])
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    wanted = wanted[:, None]  # [rows, 1]
    difference = (logits.gather(1, wanted) - logits.gather(1, foil[:, None]))[:, 0]
    if target == "logit_difference":
        return difference
    # log p(y) = -log(1 + sum of the others / own) keeps its digits where p(y) is near 1. Among the others alone,
    # the cross entropy of the foil is the logarithm of their sum minus the foil's logit.
    logits.scatter_(1, wanted, -torch.inf)
    blocks = zip(logits.split(_BLOCK), foil.split(_BLOCK), strict=True)
    others = torch.cat([cross_entropy(block, at, reduction="none") for block, at in blocks])
    odds = others - difference  # logarithm of the others' sum by y's own part
    return -torch.logaddexp(torch.zeros_like(odds), odds)
