"""Defines the targets that can be explained, one number per response token, and their gradients at the logits.

Automatic differentiation would compute the same gradients less precisely. For log p(y) it computes ``1 - p(y)``
from a rounded p, which loses digits where p is near 1. The error is multiplied by the direction that all output
embeddings share, and reaches percents of an importance column in float32. Here the sum of p over all *other*
tokens replaces ``1 - p``, and nothing cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

TARGETS = ("probability", "log_probability", "logit_difference")
"""Names of the targets: p(y), as in the paper; log p(y); and the logit of y minus that of another token (foil)."""


class Reading(NamedTuple):
    """How a model reads a response: what it gives to each token, and which token it would have chosen.

    Args:
        log_probability: [response] log p(y) in nats, at least float32.
        rank: [response] rank of y among all tokens by probability; 1 is the most probable token.
        choice: [response] id of the most probable token in the place of y.
    """

    log_probability: Float[Tensor, " response"]
    rank: Int[Tensor, " response"]
    choice: Int[Tensor, " response"] = torch.zeros(0, dtype=torch.long)


def stored(target: str) -> str:
    """Return the target whose gradient is computed and stored for a target.

    For p this is log p, because the gradient of p is that of log p times p.

    Args:
        target: One of :data:`TARGETS`.

    Raises:
        ValueError: The target is unknown.

    Example:
        >>> stored("probability"), stored("logit_difference")
        ('log_probability', 'logit_difference')
    """
    if target not in TARGETS:
        raise ValueError(f"saliency.target={target}: expected one of {', '.join(TARGETS)}")
    return "log_probability" if target == "probability" else target


def check_places(total: int, sources: Sequence[int], response: int, chunk: int) -> None:
    """Check the arguments that all engines share.

    Args:
        total: Number of ids fed to the model.
        sources: Positions to attribute to.
        response: Number of ids at the end that are the response.
        chunk: Number of derivatives computed together.

    Raises:
        ValueError: ``response``, ``chunk`` or a source is out of range; the message names each of them.

    Example:
        >>> check_places(5, [0, 4], 2, 0)
        Traceback (most recent call last):
        ...
        ValueError: chunk must be at least 1, got 0; sources must lie in 0..3, before the last token, got [4]
    """
    faults, last = [], total - 2  # no prediction depends on the last token
    if not 0 < response < total:
        faults.append(f"response must be in 1..{total - 1} for {total} ids, got {response}")
    if chunk < 1:
        faults.append(f"chunk must be at least 1, got {chunk}")
    if outside := [source for source in sources if not 0 <= source <= last]:
        faults.append(f"sources must lie in 0..{last}, before the last token, got {outside}")
    if faults:
        raise ValueError("; ".join(faults))


def at_logits(
    logits: Float[Tensor, "response vocab"],
    wanted: Int[Tensor, " response"],
    target: str,
    foils: Int[Tensor, " response"] | None = None,
) -> tuple[Float[Tensor, "response vocab"], Reading]:
    """Compute the gradient of each response token's target with respect to the logits that predict the token.

    Args:
        logits: [response, vocab] logits at the positions that predict the response; no graph is needed.
        wanted: [response] ids of the response.
        target: ``log_probability``, or ``logit_difference``; the latter subtracts the largest logit of the other
            tokens, and treats the choice of that token as fixed.
        foils: [response] ids to subtract the logits of, in place of the largest; a foil that is the response token
            itself stands for the strongest other token.

    Returns:
        Gradients, [response, vocab], at least float32; and how the model reads the response.

    Example:
        >>> d, (logp, rank, _) = at_logits(torch.tensor([[2.0, 1.0, 1.0]]), torch.tensor([0]), "log_probability")
        >>> bool(torch.allclose(d[0, 0], 1 - logp[0].exp())), rank.tolist()
        (True, [1])
        >>> at_logits(torch.tensor([[2.0, 1.0, 1.5]]), torch.tensor([0]), "logit_difference")[0]
        tensor([[ 1.,  0., -1.]])
        >>> at_logits(torch.tensor([[2.0, 1.0, 1.5]]), torch.tensor([0]), "logit_difference", torch.tensor([1]))[0]
        tensor([[ 1., -1.,  0.]])
    """
    logits = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    index = wanted[:, None]  # [response, 1]
    shifted = logits - logits.amax(-1, keepdim=True)  # [response, vocab]
    weight = shifted.exp()  # [response, vocab], p up to the factor 1 / total
    own = weight.gather(1, index)  # [response, 1]
    others = weight.scatter(1, index, 0.0).sum(-1, keepdim=True)  # [response, 1]
    total = own + others
    # [response]; log1p keeps the digits where p is near 1
    logp = torch.where(own > others, -torch.log1p(others / own), shifted.gather(1, index) - total.log())[:, 0]
    reading = Reading(logp, (shifted > shifted.gather(1, index)).sum(-1) + 1, logits.argmax(-1))
    if target == "log_probability":
        return (-weight / total).scatter(1, index, others / total), reading
    other = logits.scatter(1, index, float("-inf")).argmax(-1, keepdim=True)  # [response, 1]
    if foils is not None:
        given = foils.to(index)[:, None]  # [response, 1]
        other = torch.where(given == index, other, given)
    gradient = torch.zeros_like(logits).scatter(1, other, -1.0)  # [response, vocab]
    return gradient.scatter(1, index, 1.0), reading
