"""Tests whether the effect is specific to instruction tokens or also appears in other tokens of the prompt."""

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
"""Prompts with fewer tokens outside the instruction are not used: they cannot separate the two kinds of tokens."""
MIN_PROMPTS = 10
"""Smallest group for these controls, which use only some prompts: smaller groups have too little power."""


def random_mask(question: Question, sample: Densities, seed: int = 0) -> Control:
    """Test whether the instruction shows a larger effect than equally many random tokens of the prompt.

    Base and tuned get the same random tokens if their prompts have the same number of tokens.

    Returns:
        Control with the median t and Hedges g of the draws; p is the share of draws whose t reaches the
        instruction's t.
    """
    name, asks = "random mask", "Is the effect larger than with as many random tokens of the prompt?"
    question = question.where(_has_others(sample.records))
    comparison = _on_enough_prompts(question, sample.headline)
    if comparison.statistic is None:
        return comparison.control(name, asks, specific=True)
    scores = np.zeros((DRAWS, len(sample.records)))
    for i in question.used:
        record, density = sample.records[i], sample.divided[i]
        size = int(record.instruction.sum())
        rng = np.random.default_rng([seed, zlib.crc32(f"{record.dataset}\n{record.id}".encode())])
        drawn = rng.permuted(np.tile(np.arange(len(density)), (DRAWS, 1)), axis=1)[:, :size]  # [draws, size]
        scores[:, i] = density[drawn].sum(axis=1) / np.log2(2 + size)
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
    """Test whether tokens outside the instruction show less of the effect (difference of standardised scores)."""
    question = question.where(_has_others(sample.records))
    alone, used = _on_enough_prompts(question, sample.others), question.used
    difference = np.zeros(len(sample.records))
    difference[used] = np.subtract(*standardised(np.stack([sample.headline[used], sample.others[used]])))
    notes = [f"{question.size} with at least {MIN_OTHER_TOKENS} of them"]
    if alone.p is not None:
        notes.insert(0, f"others alone: g = {alone.effect:.2f}, t = {alone.statistic:.2f}, p = {alone.p:.2g}")
    asks = "Is the effect larger on the instruction than on the other tokens of the prompt?"
    comparison = _on_enough_prompts(question, difference)
    return comparison.control("non-instruction tokens", asks, "; ".join(notes), specific=True)


def context_tokens(question: Question, sample: Densities, seed: int = 0) -> Control:
    """Test whether the instruction's mean density gained more than the context's, on prompts with a context."""
    has_both = [_is_large_enough(r.context & ~r.instruction) and r.instruction.any() for r in sample.records]
    question = question.where(np.array(has_both, bool))
    context, instruction = sample.context_mean, sample.instruction_mean
    notes = [
        f"{name} {values[question.low].mean():.3f} -> {values[question.high].mean():.3f}"
        for name, values in (("context", context), ("instruction", instruction))
        if len(question.high) and len(question.low)
    ]
    return _on_enough_prompts(question, instruction - context).control(
        "context tokens",
        "Is the effect larger on the instruction than on the context?",
        "; ".join([*notes, f"{question.size} with a context"]),
    )


def _is_large_enough(mask: Bool[np.ndarray, " _"]) -> bool:
    return bool(mask.sum() >= MIN_OTHER_TOKENS)


def _has_others(records: Sequence[Scored]) -> Bool[np.ndarray, " records"]:
    return np.array([_is_large_enough(~r.instruction) and r.instruction.any() for r in records], bool)


def _on_enough_prompts(question: Question, values: Float[np.ndarray, " records"]) -> Comparison:
    """Compare the values if each group has at least :data:`MIN_PROMPTS` records."""
    sizes = len(question.high), len(question.low)
    if min(sizes) < MIN_PROMPTS:
        return Comparison(why_not=f"needs at least {MIN_PROMPTS} in each group, has {sizes[0]} and {sizes[1]}")
    return question.compare(values)
