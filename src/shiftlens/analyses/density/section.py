"""Sections of the importance scores: maps, densities, sensitivity to the settings, and the list of samples."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shiftlens.analyses.density.compute import Examination
from shiftlens.analyses.density.figures import density_by_region, position_profile, saliency_heatmap
from shiftlens.analyses.density.maps import REGIONS, SaliencyMap
from shiftlens.analyses.density.sensitivity_figure import sensitivity_map
from shiftlens.models.roles import ROLES
from shiftlens.results.render import render
from shiftlens.results.section import Section, Tile
from shiftlens.scores.settings import Settings

MAX_ROWS = 500
"""Samples listed on the page; it says so when there are more."""
_CUT = 160
_HERE = Path(__file__).parent
_SCALARS = {
    "instruction_score": "instruction_score",
    "density_instruction": "density_instruction",
    "density_context": "density_context",
    "density_other": "density_other",
    "followed": "follow_rate",
}
_TILES = (
    ("Instruction score", "instruction_score", "{:.2f}"),
    ("Density of instruction tokens", "density_instruction", "{:.3f}"),
    ("Density of context tokens", "density_context", "{:.3f}"),
    ("Instructions followed", "followed", "{:.0%}"),
)
_LEADS = {
    "density": "Mean over prompts, with 95 % confidence intervals. A density of 1 marks the heaviest token of its "
    "prompt.",
    "sensitivity": "The test statistic of each finding over every choice that could have been made (T1: followed "
    "against unfollowed; T2: tuned against base; data: {data}). Red: the effect goes the expected way. A dot: "
    "p ≤ 0.05 after correction for the whole grid. One bright cell among pale ones is selection, not evidence.",
    "profile": "Mean density in ten bins of relative prompt position, with 95 % confidence bands. A dip in the "
    "middle is the “lost in the middle” pattern.",
}


def density_sections(
    examination: Examination,
    samples: pd.DataFrame,
    tokens: pd.DataFrame,
    profile: pd.DataFrame,
    maps: Sequence[SaliencyMap],
    settings: Settings,
    picture_b: int,
) -> list[Section]:
    """Build the sections of the importance scores.

    Args:
        examination: T1 and T2.
        samples: Table ``samples``.
        tokens: Table ``tokens``: ``role, id, position, token, region, density``.
        profile: Table ``profile``: ``role, dataset, bin (0..9), mean, std, n``.
        maps: Saliency maps, base and tuned of the same prompts side by side.
        settings: L, b and p of the tests.
        picture_b: Threshold b of the maps: levels up to ``picture_b`` are left out.
    """
    tables = {"samples": samples, "tokens": tokens, "profile": profile, "sensitivity": examination.sensitivity}
    pooled, figure = _sensitivity(examination.sensitivity)
    return [
        Section(
            findings=examination.findings,
            tables=tables,
            title="Which prompt tokens drive each response token",
            html=maps_html(maps, samples, settings.L, picture_b),
            rank=10,
            tiles=density_tiles(samples),
            scalars=density_scalars(samples),
            gallery=partial(_gallery, maps),
            script=(_HERE / "maps.js").read_text(encoding="utf-8"),
        ),
        Section(
            title="Importance density by region",
            lead=_LEADS["density"],
            figures={"density_by_region": density_by_region(samples)},
            rank=20,
        ),
        Section(
            title="Sensitivity to L, b and p",
            lead=_LEADS["sensitivity"].format(data=pooled),
            figures={"sensitivity": figure},
            rank=30,
        ),
        Section(
            title="Importance density over the prompt",
            lead=_LEADS["profile"],
            figures={"position_profile": position_profile(profile)},
            rank=40,
        ),
        Section(title="Samples", html=samples_html(samples), rank=90),
    ]


def density_scalars(samples: pd.DataFrame) -> dict[str, float]:
    """Compute means as ``base/...`` and ``tuned/...`` and their difference as ``shift/...``; no entry if unknown.

    Example:
        >>> samples = pd.DataFrame({"role": ["base", "tuned"], "instruction_score": [1.0, 1.5]})
        >>> density_scalars(samples)["shift/instruction_score"]
        0.5
    """
    values: dict[str, float] = {}
    for column, name in _SCALARS.items():
        means = _means(samples, column)
        values |= {f"{role}/{name}": mean for role, mean in means.items()}
        if len(means) == len(ROLES):
            values[f"shift/{name}"] = means["tuned"] - means["base"]
    return values


def density_tiles(samples: pd.DataFrame) -> list[Tile]:
    """Build the tiles with the main numbers of both models; numbers that one model lacks are left out."""
    tiles = []
    for label, column, form in _TILES:
        means = _means(samples, column)
        if len(means) == len(ROLES):
            tiles.append(Tile(label, *(form.format(means[role]) for role in ROLES)))
    return tiles


def maps_html(maps: Sequence[SaliencyMap], samples: pd.DataFrame, L: int, picture_b: int) -> str:
    """Render the HTML of the maps with the texts of their prompts; ``maps.js`` draws the maps in the browser."""
    return render(
        _HERE / "maps.html.j2", prompts=_prompts(maps, samples), picture_b=picture_b, data=_map_data(maps, L)
    )


def samples_html(samples: pd.DataFrame) -> str:
    """Render the list of samples: score, followed or not, and the beginning of the response, of both models."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for sample in samples.to_dict("records"):
        key = (str(sample["dataset"]), str(sample["id"]))
        row = rows.setdefault(key, {"dataset": key[0], "id": key[1]})
        followed, text = sample.get("followed"), str(sample.get("response") or "")
        row[str(sample["role"])] = {
            "score": float(sample["instruction_score"]),
            "followed": None if pd.isna(followed) else bool(followed),
            "response": text[:_CUT] + "…" if len(text) > _CUT else text,
        }
    return render(_HERE / "samples.html.j2", rows=list(rows.values()), max_rows=MAX_ROWS, roles=ROLES)


def _means(samples: pd.DataFrame, column: str) -> dict[str, float]:
    """Compute the mean of a column per role, without missing values; roles without values are left out."""
    if column not in samples:
        return {}
    known = {role: samples.loc[samples["role"] == role, column].dropna().astype(float) for role in ROLES}
    return {role: float(values.mean()) for role, values in known.items() if len(values)}


def _sensitivity(table: pd.DataFrame) -> tuple[str, go.Figure]:
    """Return the name of the last data set (``pooled`` if there are several) and its map of settings."""
    if not len(table):
        return "none", go.Figure()
    data = str(list(dict.fromkeys(table["data"]))[-1])
    return data, sensitivity_map(table, data)


def _gallery(maps: Sequence[SaliencyMap]) -> Mapping[str, go.Figure]:
    """Draw one heatmap per map, numbered by prompt, because loggers refuse some characters of prompt ids."""
    numbers: dict[str, int] = {}
    return {
        f"maps/{numbers.setdefault(saliency.prompt_id, len(numbers))}/{saliency.role}": saliency_heatmap(saliency)
        for saliency in maps
    }


def _map_data(maps: Sequence[SaliencyMap], L: int) -> dict[str, Any]:
    largest = max((int(m.score.max(initial=0)) for m in maps), default=1)
    packed = [
        {
            "role": m.role,
            "rows": list(m.prompt_tokens),
            "columns": list(m.response_tokens),
            "regions": [REGIONS.index(region) for region in m.regions],
            "density": [round(float(a), 4) if np.isfinite(a) else 0.0 for a in m.density],
            # Bytes, row-major: a tenth of the size of a JSON list.
            "score": base64.b64encode(np.ascontiguousarray(m.score, dtype=np.uint8).tobytes()).decode(),
        }
        for m in maps
    ]
    return {"levels": max(L, largest, 1), "regions": REGIONS, "maps": packed}


def _prompts(maps: Sequence[SaliencyMap], samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Group the maps by prompt, in order, each with its index in the embedded data."""
    texts: dict[str, str] = {}
    if "prompt" in samples:
        texts = dict(zip(samples["id"].astype(str), samples["prompt"].astype(str), strict=True))
    groups: dict[str, list[dict[str, Any]]] = {}
    for index, saliency in enumerate(maps):
        entry = {"index": index, "map": saliency, "heaviest": _heaviest(saliency)}
        groups.setdefault(saliency.prompt_id, []).append(entry)
    return [
        {"id": name, "text": texts.get(name, "".join(entries[0]["map"].prompt_tokens)), "maps": entries}
        for name, entries in groups.items()
    ]


def _heaviest(saliency: SaliencyMap, count: int = 5) -> list[str]:
    order = np.argsort(-np.nan_to_num(saliency.density), kind="stable")[:count]
    return [saliency.prompt_tokens[i].strip() or "␣" for i in order if saliency.density[i] > 0]
