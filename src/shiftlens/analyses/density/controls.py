"""Tests rival explanations of T1 and T2 (controls).

Each control tests one rival explanation, one-sided; the headline survives a control if the control's p <= 0.05.
Two controls test whether the effect comes from *instruction words* (specificity), one whether the instruction
gained more than the context, three whether the effect depends on the form of the score, and two whether the
length of response or prompt explains the effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hydra.utils import instantiate
from jaxtyping import Int

from shiftlens.analyses.density.specificity import context_tokens, other_tokens, random_mask
from shiftlens.errors import ConfigError
from shiftlens.results.finding import Control
from shiftlens.scores.densities import Densities
from shiftlens.scores.following import MIN_RESPONSE_TOKENS
from shiftlens.stats.contrast import Question
from shiftlens.stats.regression import adjusted

ControlTest = Callable[[Question, Densities, int], Control]
"""Function (question, densities at the headline's setting, random seed) -> :class:`Control`."""


def no_division(question: Question, sample: Densities, seed: int = 0) -> Control:
    """Test the instruction score without the division by the prompt's largest density.

    Undivided densities grow with the number of response tokens; so the note also gives the effect at equal length.
    """
    long_enough, count, _ = _equally_long(question, sample)
    equal = long_enough.compare(sample.first(count, divided=False))
    note = (
        "" if equal.p is None else f"on equally many response tokens: t = {equal.statistic:.2f}, p = {equal.p:.2g}"
    )
    return question.compare(sample.headline_undivided).control(
        "no division by max", "Is the effect there without dividing by the prompt's largest density?", note
    )


def mean(question: Question, sample: Densities, seed: int = 0) -> Control:
    """Test the mean density of the instruction tokens; the instruction score divides by a logarithm instead."""
    asks = "Is the effect there in the mean density of the instruction tokens?"
    return question.compare(sample.instruction_mean).control("mean", asks)


def share(question: Question, sample: Densities, seed: int = 0) -> Control:
    """Test the instruction's share of all density in the prompt."""
    asks = "Is the effect there in the instruction's share of all density in the prompt?"
    return question.compare(sample.instruction_share).control("share", asks)


def equal_length(question: Question, sample: Densities, seed: int = 0) -> Control:
    """Test the score on the same number of response tokens on both sides, as density grows with their number.

    T2 uses the first K tokens of both responses to a prompt, where K is the length of the shorter response. T1
    uses the first K tokens of every response, where K is the lower quartile of all compared lengths (both groups
    together); shorter responses are left out.
    """
    long_enough, count, size = _equally_long(question, sample)
    return long_enough.compare(sample.first(count)).control(
        "equal response length",
        "Is the effect there on equally many response tokens?",
        f"{size}; {long_enough.size}",
    )


def _equally_long(question: Question, sample: Densities) -> tuple[Question, Int[np.ndarray, " records"], str]:
    """Choose how many response tokens to use for each record.

    Returns:
        The question on the responses that are long enough; [records] number of tokens; that number in words.
    """
    lengths = np.array([r.n_response for r in sample.records], int)
    count = np.zeros(len(lengths), int)
    if question.paired:
        count[question.high] = count[question.low] = np.minimum(lengths[question.high], lengths[question.low])
        size = "the shorter of the two responses"
    else:
        used = lengths[question.used]
        quartile = int(np.quantile(used, 0.25, method="lower")) if len(used) else 0
        count[question.used] = np.where(used >= quartile, quartile, 0)
        size = f"{quartile} tokens each"
    return question.where(count >= MIN_RESPONSE_TOKENS), count, size


def covariates(question: Question, sample: Densities, seed: int = 0) -> Control:
    """Test the effect at equal lengths of instruction, prompt and response, by least squares."""
    sizes = [(r.instruction.sum(), len(r.instruction), r.n_response) for r in sample.records]
    result = adjusted(question, sample.headline, np.log1p(np.array(sizes, float).reshape(-1, 3)))
    return result.control(
        "lengths as covariates",
        "Is the effect there at equal lengths of instruction, prompt and response?",
        f"least squares on logarithms, HC3 errors; {question.size}",
    )


CONTROLS: tuple[ControlTest, ...] = (
    random_mask,
    other_tokens,
    context_tokens,
    no_division,
    mean,
    share,
    equal_length,
    covariates,
)
"""Controls of every run; changing this list changes verdicts and requires a new ``EVIDENCE_VERSION``."""


def run_controls(
    question: Question, sample: Densities, seed: int = 0, further: Sequence[ControlTest] = ()
) -> tuple[Control, ...]:
    """Run every control of one question.

    Args:
        question: T1 or T2, on some of the records.
        sample: Densities of all records at the headline's setting.
        seed: Random seed for the controls that draw at random.
        further: Controls to run in addition to :data:`CONTROLS`.
    """
    return tuple(control(question, sample, seed) for control in (*CONTROLS, *further))


def controls_from_config(nodes: Mapping[str, Any] | None) -> dict[str, ControlTest]:
    """Instantiate the controls named in a configuration.

    Args:
        nodes: Name -> a node whose ``_target_`` makes a control (:data:`ControlTest`); a ``_target_`` that is the
            control itself needs ``_partial_: true``.

    Returns:
        Name -> control.

    Raises:
        ConfigError: A node gives an object that cannot be called.

    Example:
        >>> controls_from_config(None)
        {}
    """
    controls = {name: instantiate(dict(node)) for name, node in (nodes or {}).items()}
    wrong = [name for name, control in controls.items() if not callable(control)]
    if wrong:
        expected = "expected a control: (question, densities, seed) -> Control"
        raise ConfigError("\n".join(f"controls.{name}: {expected}" for name in wrong))
    return controls
