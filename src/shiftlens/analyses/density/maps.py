"""Which prompts are shown as saliency maps, and the maps themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from shiftlens.models.roles import ROLES
from shiftlens.prompts.encode import token_texts
from shiftlens.results.analysis import SaliencyMap
from shiftlens.scores import score
from shiftlens.scores.samples import Measured
from shiftlens.scores.settings import Settings


def choose_prompts(samples: pd.DataFrame, prompt: str | None, count: int) -> list[str]:
    """Ids of the prompts to show: the asked one, or the one with the median shift, then others in order.

    The median, not the largest: a hand-picked or extreme picture would promise more than the data.

    Args:
        samples: as in :class:`shiftlens.results.analysis.Analysis`.
        prompt: id asked for, or ``None``.
        count: how many prompts.
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
        chosen: prompt ids.
        measured: role -> its samples.
        tokenizers: role -> its tokenizer.
        samples: the samples table, for scores and verdicts.
        settings: L and b of the pictures; densities keep those of the samples table.
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
                    score=score(m.row.gradient, settings.L, settings.b),
                    density=m.density,
                    instruction_score=float(row["instruction_score"]),
                    response=m.row.response,
                    followed=None if pd.isna(row["followed"]) else bool(row["followed"]),
                )
            )
    return maps
