"""One sample to explain, and the order and batches in which samples are explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from shiftlens.attribution.engine import Engine
from shiftlens.attribution.methods import Gradient, Method


@dataclass(frozen=True)
class Units:
    """Units of several tokens that a method may explain a response by.

    Args:
        name: What a unit is: ``word``, ``sentence`` or ``region``.
        of: [prompt] Index of each prompt token's unit, from 0.
        always: Whether methods that take units use these whatever it costs; otherwise only where token by token
            costs more than :data:`MOST_GRADIENTS` gradients.
    """

    name: str
    of: tuple[int, ...]
    always: bool = True

    def used(self, response: int) -> bool:
        """Return whether a response of some length is explained by units.

        Args:
            response: Number of response tokens.

        Example:
            >>> Units("sentence", (0, 0, 1), always=False).used(300)
            False
        """
        # N (N/2 + M) token rows of removal against N M of the gradient's best cut.
        return self.always or (response > 0 and 1 + len(self.of) / (2 * response) > MOST_GRADIENTS)


MOST_GRADIENTS = 3.0
"""Removal token by token may cost this many times the gradient before it goes by larger units."""


@dataclass(frozen=True)
class Request:
    """One sample to explain.

    Args:
        key: its key in the ledger.
        input_ids: [total] the prompt as fed, template included.
        prompt_index: [prompt] positions of the user's tokens; none if the response is only to be read.
        response_ids: the response to explain, or ``None`` for the model's own.
        max_new_tokens: longest response of its own.
        stops: ids that end a response; the same throughout a run.
        include_response: whether response tokens are sources too.
        method: How it is explained.
        outside: Positions of tokens outside the user's text that are sources too.
        units: Units in place of tokens, for methods that take them; ``None`` for tokens.
        foils: Ids that the response is contrasted with, one for each response token or one for all: explained is
            the logit difference to them, whatever the engine's target. ``None`` for the engine's target.
        sets: Sets of positions that the response is explained by, in place of other sources; they may overlap, and
            the importance of a set is that of all its tokens together. ``None`` for none.
    """

    key: str
    input_ids: tuple[int, ...]
    prompt_index: tuple[int, ...]
    response_ids: tuple[int, ...] | None
    max_new_tokens: int
    stops: tuple[int, ...]
    include_response: bool = False
    method: Method = field(default_factory=Gradient)
    outside: tuple[int, ...] = ()
    units: Units | None = None
    foils: tuple[int, ...] | None = None
    sets: tuple[tuple[int, ...], ...] | None = None

    def target_of(self, engine: Engine) -> Engine:
        """Return the engine with the target that the request explains.

        Args:
            engine: Engine of the run.

        Example:
            >>> Request("", (1,), (0,), (5,), 8, (), foils=(7,)).target_of(Engine()).target
            'logit_difference'
        """
        return engine if self.foils is None else replace(engine, target="logit_difference", foils=self.foils)


def by_cost(requests: Sequence[Request]) -> list[Request]:
    """The most expensive first: what does not fit fails early, and ranks of a parallel run end together.

    Args:
        requests: in any order; equal ones keep theirs.
    """

    def tokens(request: Request) -> tuple[int, int]:
        response = request.max_new_tokens if request.response_ids is None else len(request.response_ids)
        return -len(request.input_ids), -response

    return sorted(requests, key=tokens)


def batches(requests: Sequence[Request], batch_tokens: int) -> list[list[Request]]:
    """Neighbours whose responses are generated together, padded to the longest, within a budget of tokens.

    Args:
        requests: sorted by length, so that padding is short; those with a given response are left out.
        batch_tokens: most tokens of a batch, prompts and responses, padding included. One sample always fits.

    Example:
        >>> def some(n):
        ...     return Request(str(n), tuple(range(n)), (), None, 10, ())
        >>> [[r.key for r in batch] for batch in batches([some(9), some(8), some(2)], 40)]
        [['9', '8'], ['2']]
    """
    found: list[list[Request]] = []
    for request in requests:
        if request.response_ids is not None:
            continue
        batch = found[-1] if found else []
        longest = max(len(r.input_ids) + r.max_new_tokens for r in [*batch, request])
        if batch and longest * (len(batch) + 1) <= batch_tokens:
            batch.append(request)
        else:
            found.append([request])
    return found
