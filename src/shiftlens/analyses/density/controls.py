"""Rival explanations of T1 and T2, each put to the same test as the headline.

Each control asks one thing. All are one-sided, and the headline survives a control where its p <= 0.05. Two ask
whether *instruction words* make the effect (specificity), one whether the instruction or the context gained, three
whether the effect depends on the form of the score, two whether response or prompt length explains it.
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
"""A rival explanation: question, densities at the headline's setting and random seed -> its :class:`Control`."""


def no_division(question: Question, sample: Densities, seed: int = 0) -> Control:
    """Without the division by the prompt's largest density.

    Undivided densities grow with the number of response tokens; the note has the effect at equal length as well.
    """
    part, count, _ = _equally_long(question, sample)
    equal = part.compare(sample.first(count, divided=False))
    note = (
        "" if equal.p is None else f"on equally many response tokens: t = {equal.statistic:.2f}, p = {equal.p:.2g}"
    )
    return question.compare(sample.headline_undivided).control(
        "no division by max", "Is the effect there without dividing by the prompt's largest density?", note
    )


def mean(question: Question, sample: Densities, seed: int = 0) -> Control:
    """The mean in place of the sum over the logarithm of their number."""
    asks = "Is the effect there in the mean density of the instruction tokens?"
    return question.compare(sample.instruction_mean).control("mean", asks)


def share(question: Question, sample: Densities, seed: int = 0) -> Control:
    """The instruction's part of all density in the prompt."""
    asks = "Is the effect there in the instruction's share of all density in the prompt?"
    return question.compare(sample.instruction_share).control("share", asks)


def equal_length(question: Question, sample: Densities, seed: int = 0) -> Control:
    """The same number of response tokens on both sides: density counts response tokens.

    T2: of each prompt the first K tokens of both responses, K the length of the shorter. T1: of every response
    the first K, K the lower quartile of all lengths compared (chosen without looking at the groups); shorter
    responses are left out.
    """
    part, count, size = _equally_long(question, sample)
    return part.compare(sample.first(count)).control(
        "equal response length", "Is the effect there on equally many response tokens?", f"{size}; {part.size}"
    )


def _equally_long(question: Question, sample: Densities) -> tuple[Question, Int[np.ndarray, " records"], str]:
    """The question on responses that are long enough, how many tokens of each to take, and that in words."""
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
    """Least squares with the lengths of instruction, prompt and response as covariates."""
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
"""The controls of every run; a change of this list changes verdicts and raises ``EVIDENCE_VERSION``."""


def run_controls(
    question: Question, sample: Densities, seed: int = 0, further: Sequence[ControlTest] = ()
) -> tuple[Control, ...]:
    """Put every rival explanation of one question to the test.

    Args:
        question: T1 or T2 on some of the records.
        sample: Densities at the headline's setting.
        seed: Random seed of the controls that draw.
        further: Controls beyond :data:`CONTROLS`.
    """
    return tuple(control(question, sample, seed) for control in (*CONTROLS, *further))


def controls_from_config(nodes: Mapping[str, Any] | None) -> dict[str, ControlTest]:
    """Controls named in a configuration.

    Args:
        nodes: Name -> a node whose ``_target_`` makes a control, see :data:`ControlTest`; a function needs
            ``_partial_: true``.

    Returns:
        Name -> control.

    Raises:
        ConfigError: A node does not give something that can be called.

    Example:
        >>> controls_from_config(None)
        {}
    """
    made = {name: instantiate(dict(node)) for name, node in (nodes or {}).items()}
    wrong = [name for name, control in made.items() if not callable(control)]
    if wrong:
        expected = "expected a control: (question, densities, seed) -> Control"
        raise ConfigError("\n".join(f"controls.{name}: {expected}" for name in wrong))
    return made
