"""Assigns examples to optimizer steps, micro-batches and ranks.

The assignment is a pure function of the settings, so a resumed run gets the same examples.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from shiftlens.errors import ConfigError
from shiftlens.tuning.examples import Example
from shiftlens.tuning.tune_options import TuneOptions

POOL = 8
"""Number of steps whose examples are sorted by length together under ``batching=grouped``."""


@dataclass(frozen=True)
class Step:
    """Examples of one optimizer step.

    Args:
        targets: Number of tokens that carry loss, over all ranks and micro-batches; the loss of the step is the
            mean over these tokens.
        shares: [micro-batches][ranks] Indices of examples; empty for a rank that gets no example because the step
            has too few.
    """

    targets: int
    shares: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices of all examples of the step."""
        return tuple(index for micro in self.shares for share in micro for index in share)


def plan(some: Sequence[Example], options: TuneOptions, ranks: int = 1) -> tuple[Step, ...]:
    """Assign examples to every optimizer step of a run.

    Each pass uses every example once, in an order drawn from the seed and the number of the pass. The examples of
    a step do not depend on the number of ranks and micro-batches; without dropout, the trained weights do not
    depend on them either, up to rounding.

    Args:
        some: Examples to train on.
        options: Settings of the run; used are seed, steps or epochs, batch, accumulate and batching.
        ranks: Number of processes that share each step.

    Returns:
        The steps of the run, in order.

    Raises:
        ConfigError: There are more ranks than examples, or more ranks than examples in a step.

    Example:
        >>> four = [Example((1,) * n, 0) for n in (9, 2, 8, 3)]
        >>> steps = plan(four, TuneOptions(steps=2, batch=2), ranks=2)
        >>> sorted(index for step in steps for index in step.indices)
        [0, 1, 2, 3]
        >>> steps == plan(four, TuneOptions(steps=2, batch=2), ranks=2)
        True
    """
    if len(some) < ranks:
        raise ConfigError(
            f"trainer.devices gives {ranks} ranks for {len(some)} training examples; use "
            f"trainer.devices={max(len(some), 1)} or more examples (data.limit)"
        )
    if options.batch < ranks:
        raise ConfigError(
            f"tune.batch={options.batch} dialogues of a step are fewer than the {ranks} ranks that share them; "
            f"use tune.batch={ranks} or more"
        )
    per_pass = -(-len(some) // options.batch)
    total = options.steps if options.steps is not None else per_pass * options.epochs
    steps: list[Step] = []
    for number in range(-(-total // per_pass)):
        for chosen in _one_pass([len(e.ids) for e in some], options, number, per_pass):
            targets = sum(some[index].targets for index in chosen)
            steps.append(Step(targets, _shares(some, chosen, options, ranks)))
    return tuple(steps[:total])


def _one_pass(lengths: Sequence[int], options: TuneOptions, number: int, steps: int) -> list[list[int]]:
    """Return the indices of the examples of each step in pass ``number``, in random order.

    Under ``batching=grouped``, the examples of a step have similar lengths.
    """
    # A generator seeded with text draws the same numbers on every machine.
    draw = random.Random(f"order {options.seed} {number}")
    order = draw.sample(range(len(lengths)), len(lengths))
    if options.batching == "packed":
        return _even(order, steps)
    step_indices: list[list[int]] = []
    pools = _even(order, -(-steps // POOL))
    for position, pool in enumerate(pools):
        size = steps // len(pools) + (position < steps % len(pools))
        step_indices += _even(sorted(pool, key=lambda index: lengths[index]), size)
    return draw.sample(step_indices, len(step_indices))


def _even(items: list[int], parts: int) -> list[list[int]]:
    """Split items, in order, into ``parts`` lists whose sizes differ by one at most."""
    edges = [len(items) * part // parts for part in range(parts + 1)]
    return [items[start:end] for start, end in pairwise(edges)]


def _shares(
    some: Sequence[Example], chosen: list[int], options: TuneOptions, ranks: int
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Split the examples of a step into [micro-batches][ranks] lists of indices.

    A micro-batch holds examples of similar length; its ranks get about the same number of tokens each.
    """
    long_first = sorted(chosen, key=lambda index: -len(some[index].ids))
    micros = []
    for group in _even(long_first, options.accumulate):
        shares: list[list[int]] = [[] for _ in range(ranks)]
        for index in group:
            lightest = min(range(ranks), key=lambda rank: (sum(len(some[i].ids) for i in shares[rank]), rank))
            shares[lightest].append(index)
        micros.append(tuple(map(tuple, shares)))
    return tuple(micros)
