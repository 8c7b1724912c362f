"""From ledger rows to tables: scores, densities and regions of every sample, one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8

from shiftlens.attribution.row import Row
from shiftlens.prompts.encode import Encoded
from shiftlens.prompts.verifiable import followed
from shiftlens.scores import density, instruction_score, position_profile, region_mean, score
from shiftlens.scores.following import followed_or_rated
from shiftlens.scores.importance import counted, levels_beside
from shiftlens.scores.settings import Settings

BINS = 10


@dataclass(frozen=True)
class Measured:
    """One sample under one model with its scores.

    Args:
        role: ``base`` or ``tuned``.
        encoded: the prompt as fed.
        row: its raw attribution.
        S: [sources, response] sparse score; sources are the prompt tokens, then, where asked for, the response.
        density: [sources] importance density.
        followed: whether the response follows the instruction, ``None`` if not known.
        text: whose response it is: ``base``, ``tuned`` or ``given``.
        importance: [sources, response] importance as it is scored, up to a positive factor per response token;
            ``None`` where only a score was kept.
        outside: [outside] density of the tokens outside the user's text that were explained too, on the scale of
            the prompt, whose largest density is 1; theirs may be larger.
    """

    role: str
    encoded: Encoded
    row: Row
    S: UInt8[np.ndarray, "sources response"]
    density: Float[np.ndarray, " sources"]
    followed: bool | None
    text: str
    importance: Float[np.ndarray, "sources response"] | None = None
    outside: Float[np.ndarray, " outside"] = field(default_factory=lambda: np.zeros(0))

    @property
    def prompt_density(self) -> Float[np.ndarray, " prompt"]:
        """[prompt] density of the prompt tokens."""
        return self.density[: len(self.encoded.tokens)]

    @property
    def regions(self) -> list[str]:
        """[sources] region of each source."""
        return [*self.encoded.regions, *["response"] * (len(self.density) - len(self.encoded.tokens))]


def measure(
    role: str, encoded: Encoded, row: Row, settings: Settings, text: str | None = None, negative: str = "zero"
) -> Measured:
    """Score one sample.

    Args:
        role: who explains.
        encoded: the prompt as fed.
        row: the raw attribution.
        settings: L, b and p.
        text: whose response it is; by default the given one where the prompt brings one, else the role's own.
        negative: what negative importance counts as, see :func:`~shiftlens.scores.importance.counted`.
    """
    # I / p(y) in place of I: the same score, and no underflow where p is tiny.
    importance = counted(row.by_token(), negative)
    S = score(importance, settings.L, settings.b)
    beside = levels_beside(counted(row.beside(), negative), importance, settings.L, settings.b)
    top = density(S, settings.p, normalize=False).max(initial=0.0)
    outside = density(beside, settings.p, normalize=False) / (top or 1.0)
    check = encoded.prompt.check
    verdict = followed(check, row.response) if check is not None else None
    text = text or ("given" if encoded.prompt.response is not None else role)
    return Measured(role, encoded, row, S, density(S, settings.p), verdict, text, importance, outside)


def samples_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """The table ``samples``, one row per role and prompt.

    Columns: ``role, text, id, dataset, instruction_score, followed, rating``, numbers of tokens ``n_prompt,
    n_instruction, n_context, n_other, n_template, n_cut, n_response``, densities ``density_instruction,
    density_context, density_other, density_response, density_template, density_first`` (the last two with
    ``saliency.inputs=all``: template and system, and the first token of all), and ``engine, finished, prompt,
    response``. ``text`` is whose response it is: ``base``, ``tuned`` or ``given``. ``followed`` is nullable
    boolean; a region without tokens has density NaN.

    Args:
        measured: Samples with their scores.
    """
    table = pd.DataFrame([_sample(m) for m in measured])
    table["followed"] = followed_or_rated(table["followed"].astype("boolean"), table["rating"].astype("Int64"))
    return table


def _sample(m: Measured) -> Mapping[str, object]:
    encoded, a, prompt = m.encoded, m.prompt_density, m.encoded.prompt
    own = m.density[len(a) :]
    places = np.zeros(0, int) if m.row.outside is None else m.row.outside
    first = places == 0  # models rest attention that they do not need on it
    other = ~(encoded.instruction | encoded.context)
    return {
        "role": m.role,
        "text": m.text,
        "id": prompt.id,
        "dataset": prompt.dataset,
        "instruction_score": instruction_score(a, encoded.instruction),
        "followed": m.followed,
        # A rating judges one response: the given one, else the tuned model's own.
        "rating": prompt.rating if m.text == ("tuned" if prompt.response is None else "given") else None,
        "n_prompt": len(a),
        "n_instruction": int(encoded.instruction.sum()),
        "n_context": int(encoded.context.sum()),
        "n_other": int(other.sum()),
        "n_template": len(encoded.input_ids) - len(a),
        "n_cut": encoded.cut,
        "n_response": m.S.shape[1],
        "density_instruction": region_mean(a, encoded.instruction),
        "density_context": region_mean(a, encoded.context),
        "density_other": region_mean(a, other),
        "density_response": region_mean(own, np.ones(len(own), bool)),
        "density_template": region_mean(m.outside, ~first),
        "density_first": region_mean(m.outside, first),
        "engine": m.row.engine,
        "finished": m.row.finished,
        "prompt": prompt.text,
        "response": m.row.response,
    }


def tokens_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """One row per role, prompt and prompt token."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "role": m.role,
                    "id": m.encoded.prompt.id,
                    "position": np.arange(len(m.prompt_density)),
                    "token": list(m.encoded.tokens),
                    "region": m.encoded.regions,
                    "density": m.prompt_density,
                }
            )
            for m in measured
        ],
        ignore_index=True,
    )


def profile_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """Mean density over samples in :data:`BINS` bins of relative position, per role and data set.

    A prompt counts in the bins that it has tokens in; ``n`` is their number.
    """
    rows = []
    groups: dict[tuple[str, str], list[np.ndarray]] = {}
    for m in measured:
        groups.setdefault((m.role, m.encoded.prompt.dataset), []).append(position_profile(m.prompt_density, BINS))
    for (role, dataset), profiles in groups.items():
        stacked = np.stack(profiles)
        for place in range(BINS):
            values = stacked[:, place][np.isfinite(stacked[:, place])]
            mean, std = (float(values.mean()), float(values.std())) if len(values) else (np.nan, np.nan)
            rows.append(
                {"role": role, "dataset": dataset, "bin": place, "mean": mean, "std": std, "n": len(values)}
            )
    return pd.DataFrame(rows)
