"""Chooses the prompts shown as saliency maps, and makes the maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from transformers import PreTrainedTokenizerBase

from shiftlens.models.roles import ROLES
from shiftlens.prompts.encode import token_texts
from shiftlens.scores import score
from shiftlens.scores.samples import Measured
from shiftlens.scores.settings import Settings

REGIONS = ("instruction", "context", "other", "template", "response")


@dataclass(frozen=True)
class SaliencyMap:
    """Scores of one prompt under one model, for the picture of it (paper, figure 1).

    Args:
        prompt_id: Id of the prompt.
        role: ``base`` or ``tuned``.
        prompt_tokens: [prompt] Tokens as text; the response tokens follow where they are sources too.
        response_tokens: [response] Tokens as text.
        regions: [prompt] Region of each prompt token, one of :data:`REGIONS`.
        score: [prompt, response] Sparse score S, 0..L.
        density: [prompt] Importance density, largest is 1.
        instruction_score: Instruction score of the sample.
        response: Whole response as text.
        followed: Whether the response follows the instruction; ``None`` if not known.
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


def choose_prompts(samples: pd.DataFrame, prompt: str | None, count: int) -> list[str]:
    """Ids of the prompts to show: the asked one, or the one with the median shift, then others in order.

    The median, not the largest: a hand-picked or extreme picture would promise more than the data.

    Args:
        samples: Table ``samples``.
        prompt: Id asked for, or ``None``.
        count: Number of prompts.
    """
    ids = list(dict.fromkeys(samples["id"]))
    if prompt is None:
        wide = samples.pivot(index="id", columns="role", values="instruction_score").loc[ids]
        shift = (wide["tuned"] - wide["base"]).to_numpy()
        # The lower median, so that it is a prompt and not a mean of two.
        prompt = ids[int(np.argsort(shift, kind="stable")[(len(shift) - 1) // 2])]
    return [prompt, *(other for other in ids if other != prompt)][: max(count, 1)]


def saliency_maps(
    chosen: Sequence[str],
    measured: Mapping[str, Sequence[Measured]],
    tokenizers: Mapping[str, PreTrainedTokenizerBase],
    samples: pd.DataFrame,
    settings: Settings,
) -> list[SaliencyMap]:
    """Base and tuned maps of the chosen prompts, side by side.

    Args:
        chosen: Prompt ids.
        measured: Role -> its samples.
        tokenizers: Role -> its tokenizer.
        samples: Table ``samples``, for scores and verdicts.
        settings: L and b of the pictures; densities keep those of table ``samples``.
    """
    table = {(row["role"], row["id"]): row for row in samples.to_dict("records")}
    by_id = {role: {m.encoded.prompt.id: m for m in measured[role]} for role in ROLES}
    maps = []
    for prompt in chosen:
        for role in ROLES:
            m, row = by_id[role][prompt], table[role, prompt]
            responded = token_texts(tokenizers[role], m.row.response_ids.tolist())
            maps.append(
                SaliencyMap(
                    prompt_id=prompt,
                    role=role,
                    prompt_tokens=[*m.encoded.tokens, *responded[: len(m.density) - len(m.encoded.tokens)]],
                    response_tokens=responded,
                    regions=m.regions,
                    score=score(m.row.values, settings.L, settings.b),
                    density=m.density,
                    instruction_score=float(row["instruction_score"]),
                    response=m.row.response,
                    followed=None if pd.isna(row["followed"]) else bool(row["followed"]),
                )
            )
    return maps
