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

from shiftlens.analyses.density.across_methods import ByMethod, methods_table
from shiftlens.analyses.density.compute import Examination
from shiftlens.analyses.density.figures import density_by_region, position_profile, saliency_heatmap, shift_heatmap
from shiftlens.analyses.density.maps import REGIONS, SaliencyMap, ShiftMap
from shiftlens.analyses.density.sensitivity_figure import sensitivity_map
from shiftlens.models.roles import ROLES
from shiftlens.results.method_agreement import Named
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
    "methods": "Each question as each method of attribution answers it, at the same settings. Exact removal is "
    "what the importance is defined as; where it does not confirm an effect, the verdict names the one method "
    "that shows it.",
    "profile": "Mean density in ten bins of relative prompt position, with 95 % confidence bands. A dip in the "
    "middle is the “lost in the middle” pattern.",
}


def density_sections(
    found: Mapping[Named, Examination],
    explained: Sequence[ByMethod],
    chosen: Sequence[str],
    settings: Settings,
    picture_b: int,
) -> list[Section]:
    """Build the sections of the importance scores.

    Args:
        found: T1 and T2 by method; the first method is the headline.
        explained: The responses by each method, in the same order.
        chosen: Ids of the prompts that get a map.
        settings: L, b and p of the tests.
        picture_b: Threshold b of the maps: levels up to ``picture_b`` are left out.
    """
    samples, maps = explained[0].samples, {each.method.label: each.draw(chosen) for each in explained}
    sensitivity = pd.concat([each.sensitivity for each in found.values()], ignore_index=True)
    tables = {
        "samples": samples,
        "tokens": pd.concat([e.tokens.assign(method=e.method.label) for e in explained]),
        "profile": pd.concat([e.profile.assign(method=e.method.label) for e in explained]),
        "sensitivity": sensitivity,
    }
    first, *further = explained
    sections = [
        Section(
            findings=found[first.method].findings,
            tables={name: table.reset_index(drop=True) for name, table in tables.items()},
            title="Which prompt tokens drive each response token",
            html=maps_html([each for drawn in maps.values() for each in drawn], samples, settings.L, picture_b),
            rank=10,
            tiles=density_tiles(samples),
            scalars=density_scalars(samples),
            gallery=partial(_gallery, maps),
            script=(_HERE / "maps.js").read_text(encoding="utf-8"),
        ),
        *_pictures(found[first.method], first),
        Section(title="Samples", html=samples_html(samples), rank=90),
    ]
    if further:
        table = methods_table(found)
        samples_by_method = pd.concat([e.samples.assign(method=e.method.label) for e in explained])
        sections.append(
            Section(
                findings=[finding for each in further for finding in found[each.method].findings],
                tables={"methods": table, "samples_by_method": samples_by_method.reset_index(drop=True)},
                title="The same questions under each method",
                lead=_LEADS["methods"],
                html=methods_html(found),
                rank=45,
            )
        )
        sections += [section for each in further for section in _pictures(found[each.method], each, each.method)]
    return sections


def methods_html(found: Mapping[Named, Examination]) -> str:
    """Render the table with a row per question and a column per method."""
    rows = list(zip(*(examination.findings for examination in found.values()), strict=True))
    asked = [row for row in rows if any(finding.testable for finding in row)]
    return render(_HERE / "methods.html.j2", methods=list(found), rows=asked)


def _pictures(examination: Examination, explained: ByMethod, method: Named | None = None) -> list[Section]:
    """Build the three figures of a method; those of a further method have it in name and title."""
    pooled, figure = _sensitivity(examination.sensitivity)
    behind, of = (f"_{method.label}", f", by {method.words}") if method else ("", "")
    further = 5 if method else 0  # behind those of the headline
    return [
        Section(
            title=f"Importance density by region{of}",
            lead=_LEADS["density"],
            figures={f"density_by_region{behind}": density_by_region(explained.samples)},
            rank=20 + further,
        ),
        Section(
            title=f"Sensitivity to L, b and p{of}",
            lead=_LEADS["sensitivity"].format(data=pooled),
            figures={f"sensitivity{behind}": figure},
            rank=30 + further,
        ),
        Section(
            title=f"Importance density over the prompt{of}",
            lead=_LEADS["profile"],
            figures={f"position_profile{behind}": position_profile(explained.profile)},
            rank=40 + further,
        ),
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


def maps_html(maps: Sequence[SaliencyMap | ShiftMap], samples: pd.DataFrame, L: int, picture_b: int) -> str:
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


def _gallery(maps: Mapping[str, Sequence[SaliencyMap | ShiftMap]]) -> Mapping[str, go.Figure]:
    """Draw one heatmap per map, numbered by prompt, because loggers refuse some characters of prompt ids."""
    numbers: dict[str, int] = {}
    figures = {}
    for label, drawn in maps.items():
        behind = (
            "" if label == next(iter(maps)) else f"{label}/"
        )  # those of the headline have no method in the name
        for saliency in drawn:
            number = numbers.setdefault(saliency.prompt_id, len(numbers))
            fig = shift_heatmap(saliency) if isinstance(saliency, ShiftMap) else saliency_heatmap(saliency)
            figures[f"maps/{number}/{behind}{saliency.role}"] = fig
    return figures


def _map_data(maps: Sequence[SaliencyMap | ShiftMap], L: int) -> dict[str, Any]:
    largest = max((int(m.score.max(initial=0)) for m in maps if isinstance(m, SaliencyMap)), default=1)
    packed = [
        m.packed()
        if isinstance(m, ShiftMap)
        else {
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


def _prompts(maps: Sequence[SaliencyMap | ShiftMap], samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Group the maps by prompt, in order, each with its index in the embedded data."""
    texts: dict[str, str] = {}
    if "prompt" in samples:
        texts = dict(zip(samples["id"].astype(str), samples["prompt"].astype(str), strict=True))
    groups: dict[str, list[dict[str, Any]]] = {}
    for index, saliency in enumerate(maps):
        moving = saliency.most_moving() if isinstance(saliency, ShiftMap) else []
        heaviest = [] if isinstance(saliency, ShiftMap) else _heaviest(saliency)
        entry = {"index": index, "map": saliency, "heaviest": heaviest, "moving": moving}
        groups.setdefault(saliency.prompt_id, []).append(entry)
    return [
        {"id": name, "text": texts.get(name, "".join(entries[0]["map"].prompt_tokens)), "maps": entries}
        for name, entries in groups.items()
    ]


def _heaviest(saliency: SaliencyMap, count: int = 5) -> list[str]:
    order = np.argsort(-np.nan_to_num(saliency.density), kind="stable")[:count]
    return [saliency.prompt_tokens[i].strip() or "␣" for i in order if saliency.density[i] > 0]
