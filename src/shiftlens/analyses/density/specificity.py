"""Do instruction words make the effect, or would other words of the prompt show it as well?"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from shiftlens.results.finding import ALPHA, Control
from shiftlens.scores.densities import Densities
from shiftlens.scores.scored import Scored
from shiftlens.stats.contrast import Question
from shiftlens.stats.permutation import standardised
from shiftlens.stats.result import Comparison
from shiftlens.stats.two_groups import hedges_g

DRAWS = 100
MIN_OTHER_TOKENS = 3
"""A prompt with fewer tokens outside the instruction cannot tell the two apart."""
MIN_PROMPTS = 10
"""These controls use a part of the prompts; fewer in a group have no power and decide nothing."""


def random_mask(question: Question, sample: Densities, seed: int = 0) -> Control:
    """As many tokens of the prompt drawn at random: does the instruction do better than they?

    Base and tuned get the same draw where their prompts have the same number of tokens.

    Returns:
        Median t and Hedges g of the draws; p is the share of draws whose t reaches that of the instruction.
    """
    name, asks = "random mask", "Is the effect larger than with as many random tokens of the prompt?"
    question = question.where(_has_others(sample.records))
    comparison = _on_part(question, sample.headline)
    if comparison.statistic is None:
        return comparison.control(name, asks, specific=True)
    scores = np.zeros((DRAWS, len(sample.records)))
    for i in question.used:
        record, a = sample.records[i], sample.divided[i]
        size = int(record.instruction.sum())
        rng = np.random.default_rng([seed, zlib.crc32(f"{record.dataset}\n{record.id}".encode())])
        drawn = rng.permuted(np.tile(np.arange(len(a)), (DRAWS, 1)), axis=1)[:, :size]
        scores[:, i] = a[drawn].sum(axis=1) / np.log2(2 + size)
    t = question.t(scores)
    reached = int((t >= comparison.statistic).sum())
    effects = [hedges_g(row[question.high], row[question.low]) for row in scores]
    p = (1 + reached) / (1 + DRAWS)
    note = (
        f"{reached} of {DRAWS} draws reach the instruction's t = {comparison.statistic:.2f} "
        f"({question.size} with at least {MIN_OTHER_TOKENS} other tokens)"
    )
    effect = float(np.median(np.nan_to_num(effects)))
    return Control(name, asks, float(np.median(t)), p, effect, p <= ALPHA, note, specific=True)


def other_tokens(question: Question, sample: Densities, seed: int = 0) -> Control:
    """Do the tokens outside the instruction show less of the effect? Difference of the standardised scores."""
    question = question.where(_has_others(sample.records))
    alone, used = _on_part(question, sample.others), question.used
    difference = np.zeros(len(sample.records))
    difference[used] = np.subtract(*standardised(np.stack([sample.headline[used], sample.others[used]])))
    notes = [f"{question.size} with at least {MIN_OTHER_TOKENS} of them"]
    if alone.p is not None:
        notes.insert(0, f"others alone: g = {alone.effect:.2f}, t = {alone.statistic:.2f}, p = {alone.p:.2g}")
    asks = "Is the effect larger on the instruction than on the other tokens of the prompt?"
    return _on_part(question, difference).control("non-instruction tokens", asks, "; ".join(notes), specific=True)


def context_tokens(question: Question, sample: Densities, seed: int = 0) -> Control:
    """Where a prompt has a context of its own: did the instruction gain more than the context? Mean densities."""
    separate = [_counts(r.context & ~r.instruction) and r.instruction.any() for r in sample.records]
    question = question.where(np.array(separate, bool))
    context, instruction = sample.context_mean, sample.instruction_mean
    notes = [
        f"{name} {values[question.low].mean():.3f} -> {values[question.high].mean():.3f}"
        for name, values in (("context", context), ("instruction", instruction))
        if len(question.high) and len(question.low)
    ]
    return _on_part(question, instruction - context).control(
        "context tokens",
        "Is the effect larger on the instruction than on the context?",
        "; ".join([*notes, f"{question.size} with a context"]),
    )


def _counts(mask: Bool[np.ndarray, " _"]) -> bool:
    return bool(mask.sum() >= MIN_OTHER_TOKENS)


def _has_others(records: Sequence[Scored]) -> Bool[np.ndarray, " records"]:
    return np.array([_counts(~r.instruction) and r.instruction.any() for r in records], bool)


def _on_part(question: Question, values: Float[np.ndarray, " records"]) -> Comparison:
    """The comparison on a part of the prompts, if there are enough of them."""
    sizes = len(question.high), len(question.low)
    if min(sizes) < MIN_PROMPTS:
        return Comparison(why_not=f"needs at least {MIN_PROMPTS} in each group, has {sizes[0]} and {sizes[1]}")
    return question.compare(values)
