"""Converts imported responses to the records that tables and maps are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from shiftlens.analyses.density.maps import SaliencyMap
from shiftlens.analyses.imported.imported_sample import Sample
from shiftlens.analyses.imported.sentencepiece_text import pieces_text, shown
from shiftlens.attribution import Row
from shiftlens.prompts.encode import Encoded
from shiftlens.prompts.schema import Prompt
from shiftlens.scores import density, instruction_score
from shiftlens.scores.samples import Measured, samples_table
from shiftlens.scores.settings import Settings


def measure_imported(sample: Sample, settings: Settings) -> Measured:
    """Compute the scores of one imported sample at one setting.

    Token ids and probabilities, which imported scores do not have, are filled with zeros and NaN; no table
    contains them.

    Args:
        sample: Imported sample.
        settings: Values of L, b and p.

    Raises:
        ConfigError: The imported scores cannot be converted to L.
    """
    scored = sample.scored
    n, m = len(scored.instruction), scored.n_response
    S = _levels(sample, settings.L, settings.b)
    encoded = Encoded(
        prompt=Prompt(scored.id, sample.prompt, (), (), scored.dataset, rating=sample.rating),
        input_ids=(0,) * n,
        prompt_index=tuple(range(n)),
        tokens=tuple(shown(sample.prompt_pieces)),
        instruction=scored.instruction,
        context=scored.context,
    )
    row = Row(
        key="",
        input_ids=np.zeros(n + m, int),
        prompt_index=np.arange(n),
        values=S.astype(float),
        log_probability=np.full(m, np.nan),
        rank=np.zeros(m, int),
        response=pieces_text(sample.response_pieces),
        finished=False,
        engine="imported",
    )
    return Measured(
        role=scored.role, encoded=encoded, row=row, S=S, density=density(S, settings.p), followed=scored.followed,
        text=scored.role,
    )  # fmt: skip


def imported_table(measured: Sequence[Measured], samples: Sequence[Sample]) -> pd.DataFrame:
    """Build the samples table, with missing values in the columns that imported scores do not have.

    Args:
        measured: Scores of the samples, from :func:`measure_imported`.
        samples: The same samples, in the same order.
    """
    table = samples_table(measured)
    unknown = {
        "finished": pd.array([pd.NA] * len(table), dtype="boolean"),
        "n_template": pd.array([pd.NA] * len(table), dtype="Int64"),
    }
    return table.assign(rating=pd.array([sample.rating for sample in samples], dtype="Int64"), **unknown)


def imported_maps(
    chosen: Sequence[str], measured: Sequence[Measured], samples: Sequence[Sample], L: int, b: int
) -> list[SaliencyMap]:
    """Make the base and tuned maps of the chosen prompts, next to each other.

    Args:
        chosen: Ids of the prompts.
        measured: Scores of the base and tuned responses, from :func:`measure_imported`.
        samples: The same samples, in the same order.
        L: Number of levels in the maps.
        b: Largest level left out of the maps; the densities use the b of the tests.
    """
    by_id: Mapping[str, list[SaliencyMap]] = {name: [] for name in chosen}
    for m, sample in zip(measured, samples, strict=True):
        if sample.scored.id in by_id:
            by_id[sample.scored.id].append(
                SaliencyMap(
                    prompt_id=sample.scored.id,
                    role=m.role,
                    prompt_tokens=m.encoded.tokens,
                    response_tokens=shown(sample.response_pieces),
                    regions=m.regions,
                    score=_levels(sample, L, b),
                    density=m.density,
                    instruction_score=instruction_score(m.prompt_density, m.encoded.instruction),
                    response=m.row.response,
                    followed=m.followed,
                )
            )
    return [saliency for maps in by_id.values() for saliency in maps]


def _levels(sample: Sample, L: int, b: int) -> UInt8[np.ndarray, "prompt response"]:
    S = sample.scored.levels(L)
    return np.where(b < S, S, 0).astype(np.uint8)
