"""Chooses the prompts to show as saliency maps, and builds the maps."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

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
    """Scores of one prompt under one model, as drawn in a saliency map (figure 1 of the paper).

    Args:
        prompt_id: Id of the prompt.
        role: ``base`` or ``tuned``.
        prompt_tokens: [prompt] Prompt tokens as text, followed by the response tokens if these are sources too.
        response_tokens: [response] Response tokens as text.
        regions: [prompt] Region of each prompt token, one of :data:`REGIONS`.
        score: [prompt, response] Sparse score S, 0..L.
        density: [prompt] Importance density; the largest is 1.
        instruction_score: Instruction score of the response.
        response: Whole response as text.
        followed: Whether the response follows the instruction; ``None`` if not known.
        method: What findings call the method of attribution.
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
    method: str = ""


@dataclass(frozen=True)
class ShiftMap:
    """Contributions to the shift of one response, as drawn in a shift map beside the saliency maps of its prompt.

    Args:
        prompt_id: Id of the prompt.
        prompt_tokens: [prompt] Prompt tokens as text.
        response_tokens: [response] Response tokens of the tuned model as text.
        regions: [prompt] Region of each prompt token, one of :data:`REGIONS`.
        shift: [prompt, response] Importance in the tuned model minus that in the base model.
        unit: Unit of ``shift``: ``nats`` or ``logits``.
        method: What findings call the method of attribution.
    """

    prompt_id: str
    prompt_tokens: Sequence[str]
    response_tokens: Sequence[str]
    regions: Sequence[str]
    shift: Float[np.ndarray, "prompt response"]
    unit: str
    method: str
    role: ClassVar[str] = "shift"

    @property
    def net(self) -> Float[np.ndarray, " prompt"]:
        """[prompt] Net shift of each prompt token over the response."""
        net: Float[np.ndarray, " prompt"] = self.shift.sum(axis=1)
        return net

    def most_moving(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the prompt tokens with the largest net shift and that shift, largest first.

        Args:
            count: Number of tokens.
        """
        order = np.argsort(-np.abs(self.net), kind="stable")[:count]
        return [(self.prompt_tokens[i].strip() or "␣", float(self.net[i])) for i in order if self.net[i]]

    def packed(self) -> dict[str, Any]:
        """Return the map as ``maps.js`` reads it, a signed byte per cell.

        A byte q stands for ``sign(q) (q / 127)^2 most``, so that small values keep their digits beside large ones.
        """
        most, net = float(np.abs(self.shift).max(initial=0)), np.abs(self.net).max(initial=0)
        root = np.sqrt(np.abs(self.shift) / most) if most else np.zeros(self.shift.shape)
        return {
            "role": self.role,
            "rows": list(self.prompt_tokens),
            "columns": list(self.response_tokens),
            "regions": [REGIONS.index(region) for region in self.regions],
            "density": [round(float(value), 4) for value in self.net / (net or 1.0)],
            "net": [round(float(value), 4) for value in self.net],
            "most": most,
            "unit": self.unit,
            "score": base64.b64encode(
                np.rint(127 * np.sign(self.shift) * root).astype(np.int8).tobytes()
            ).decode(),
        }


def choose_prompts(samples: pd.DataFrame, prompt: str | None, count: int) -> list[str]:
    """Choose the prompts to show: the given prompt or the one with the median shift, then the others in order.

    The median and not the largest shift, because an extreme example would suggest more than the data support.

    Args:
        samples: Table ``samples``.
        prompt: Id of the prompt to show first; ``None`` for the one with the median shift.
        count: Number of prompts; at least one is chosen.

    Returns:
        Prompt ids.
    """
    ids = list(dict.fromkeys(samples["id"]))
    if prompt is None:
        wide = samples.pivot(index="id", columns="role", values="instruction_score").loc[ids]
        shift = (wide["tuned"] - wide["base"]).to_numpy()
        # The lower median, because the mean of the two middle shifts belongs to no prompt.
        prompt = ids[int(np.argsort(shift, kind="stable")[(len(shift) - 1) // 2])]
    return [prompt, *(other for other in ids if other != prompt)][: max(count, 1)]


def saliency_maps(
    measured: Sequence[Measured],
    tokenizers: Mapping[str, PreTrainedTokenizerBase],
    samples: pd.DataFrame,
    settings: Settings,
    method: str,
    chosen: Sequence[str],
) -> list[SaliencyMap]:
    """Build the maps of the chosen prompts, base and tuned side by side.

    Args:
        measured: Measured responses of both models.
        tokenizers: Role -> the model's tokenizer.
        samples: Table ``samples``, which gives instruction scores and verdicts.
        settings: L and b of the maps; the densities keep the L and b of table ``samples``.
        method: What findings call the method of attribution.
        chosen: Prompt ids.
    """
    table = {(row["role"], row["id"]): row for row in samples.to_dict("records")}
    by_id = {role: {m.encoded.prompt.id: m for m in measured if m.role == role} for role in ROLES}
    maps = []
    for prompt in chosen:
        for role in ROLES:
            m, row = by_id[role][prompt], table[role, prompt]
            assert m.importance is not None
            response_tokens = token_texts(tokenizers[role], m.row.response_ids.tolist())
            maps.append(
                SaliencyMap(
                    prompt_id=prompt,
                    role=role,
                    prompt_tokens=[*m.encoded.tokens, *response_tokens[: len(m.density) - len(m.encoded.tokens)]],
                    response_tokens=response_tokens,
                    regions=m.regions,
                    score=score(m.importance, settings.L, settings.b),
                    density=m.density,
                    instruction_score=float(row["instruction_score"]),
                    response=m.row.response,
                    followed=None if pd.isna(row["followed"]) else bool(row["followed"]),
                    method=method,
                )
            )
    return maps
