"""What is explained: the output of a model as one number per response token, and its gradient at the logits.

Autograd would give the same gradients, but not the same digits. For log p(y) it takes ``1 - p(y)`` after
p has been rounded, and where p is near 1 little is left: the error is multiplied by the direction that all
output embeddings share and reaches percents of an importance column in float32. Here the sum over the *other*
tokens takes the place of ``1 - p``, and nothing cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

TARGETS = ("probability", "log_probability", "logit_difference")
"""Names of the targets: p(y), the paper's; log p(y); and the logit of y less that of the strongest other token."""


class Reading(NamedTuple):
    """How a model reads a response, token by token.

    Args:
        log_probability: [response] log p(y), nats, at least float32.
        rank: [response] place of y among all tokens by probability; 1 is the most probable.
    """

    log_probability: Float[Tensor, " response"]
    rank: Int[Tensor, " response"]


def stored(target: str) -> str:
    """The target whose gradient is computed and stored: that of p is the one of log p, times p.

    Args:
        target: one of :data:`TARGETS`.

    Raises:
        ValueError: the target is unknown.

    Example:
        >>> stored("probability"), stored("logit_difference")
        ('log_probability', 'logit_difference')
    """
    if target not in TARGETS:
        raise ValueError(f"saliency.target={target}: expected one of {', '.join(TARGETS)}")
    return "log_probability" if target == "probability" else target


def check_places(total: int, sources: Sequence[int], response: int, chunk: int) -> None:
    """Refuse what no engine can explain.

    Args:
        total: number of ids fed.
        sources: positions to attribute to.
        response: number of ids at the end that are the response.
        chunk: derivatives at once.

    Raises:
        ValueError: ``response``, ``chunk`` or a source is out of range; it names all that are.

    Example:
        >>> check_places(5, [0, 4], 2, 0)
        Traceback (most recent call last):
        ...
        ValueError: chunk must be at least 1, got 0; sources must lie in 0..3, before the last token, got [4]
    """
    faults, last = [], total - 2  # the last token enters no prediction
    if not 0 < response < total:
        faults.append(f"response must be in 1..{total - 1} for {total} ids, got {response}")
    if chunk < 1:
        faults.append(f"chunk must be at least 1, got {chunk}")
    if outside := [source for source in sources if not 0 <= source <= last]:
        faults.append(f"sources must lie in 0..{last}, before the last token, got {outside}")
    if faults:
        raise ValueError("; ".join(faults))


def at_logits(
    logits: Float[Tensor, "response vocab"], wanted: Int[Tensor, " response"], target: str
) -> tuple[Float[Tensor, "response vocab"], Reading]:
    """Gradient of each response token's target with respect to its logits, and how the token is read.

    Args:
        logits: [response, vocab] logits at the positions that predict the response; no graph is needed.
        wanted: [response] ids of the response.
        target: ``log_probability``, or ``logit_difference``, where the other token is the strongest one that is
            not y, held fixed.

    Returns:
        [response, vocab] gradients, at least float32, and the reading.

    Example:
        >>> d, (logp, rank) = at_logits(torch.tensor([[2.0, 1.0, 1.0]]), torch.tensor([0]), "log_probability")
        >>> bool(torch.allclose(d[0, 0], 1 - logp[0].exp())), rank.tolist()
        (True, [1])
        >>> at_logits(torch.tensor([[2.0, 1.0, 1.5]]), torch.tensor([0]), "logit_difference")[0]
        tensor([[ 1.,  0., -1.]])
    """
    logits = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    place = wanted[:, None]
    shifted = logits - logits.amax(-1, keepdim=True)
    weight = shifted.exp()
    own = weight.gather(1, place)
    others = weight.scatter(1, place, 0.0).sum(-1, keepdim=True)
    total = own + others
    logp = torch.where(own > others, -torch.log1p(others / own), shifted.gather(1, place) - total.log())[:, 0]
    reading = Reading(logp, (shifted > shifted.gather(1, place)).sum(-1) + 1)
    if target == "log_probability":
        return (-weight / total).scatter(1, place, others / total), reading
    other = logits.scatter(1, place, float("-inf")).argmax(-1, keepdim=True)
    gradient = torch.zeros_like(logits).scatter(1, other, -1.0)
    return gradient.scatter(1, place, 1.0), reading
