"""The result of one run, as plain data: what the report, the loggers and the tables render."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8

from shiftlens.evidence.finding import Finding
from shiftlens.models.roles import ROLES as ROLES

REGIONS = ("instruction", "context", "other", "template", "response")


@dataclass(frozen=True)
class SaliencyMap:
    """Scores of one prompt under one model, for the picture of it (paper, figure 1).

    Args:
        prompt_id: the prompt.
        role: ``base`` or ``tuned``.
        prompt_tokens: [prompt] tokens as text; the response tokens follow where they are sources too.
        response_tokens: [response] tokens as text.
        regions: [prompt] region of each prompt token, one of :data:`REGIONS`.
        score: [prompt, response] sparse score S, 0..L.
        density: [prompt] importance density, largest is 1.
        instruction_score: the sample's instruction score.
        response: the whole response as text.
        followed: whether the response follows the instruction; ``None`` if not known.
    """

    prompt_id: str
    role: str
    prompt_tokens: Sequence[str]
    response_tokens: Sequence[str]
    regions: Sequence[str]
    score: UInt8[np.ndarray, "prompt response"]
    density: Float[np.ndarray, " prompt"]
    instruction_score: float
    response: str
    followed: bool | None


@dataclass(frozen=True)
class Section:
    """What one further view of a pair found.

    Args:
        findings: its tests.
        tables: its tables, by name.
    """

    findings: Sequence[Finding]
    tables: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Analysis:
    """Everything one run found.

    Args:
        findings: the tests.
        samples: one row per role and prompt: ``role, text, id, dataset, instruction_score, followed, rating,
            n_prompt, n_instruction, n_context, n_response, density_instruction, density_context,
            density_other, finished, prompt, response``. ``text`` is whose response it is: ``base``, ``tuned`` or
            ``given``. ``followed`` is nullable boolean; a region without tokens has density NaN.
        tokens: one row per role, prompt and prompt token: ``role, id, position, token, region, density``.
        profile: mean density over relative prompt position: ``role, dataset, bin (0..9), mean, std, n``.
        maps: saliency maps, base and tuned of the same prompts side by side, the chosen prompt first.
        provenance: what produced it: versions, git commit, models with fingerprints, settings, date.
        tables: tables of further views, by name.
    """

    findings: Sequence[Finding]
    samples: pd.DataFrame
    tokens: pd.DataFrame
    profile: pd.DataFrame
    maps: Sequence[SaliencyMap]
    provenance: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
