"""The report: one self-contained HTML file that opens from disk, without a network.

Tokens, prompts and responses are untrusted text. They reach the page in two ways only: through jinja2 with
autoescape on, or as JSON with every character that could end a script escaped. A content security policy
allows the page's own scripts by hash and nothing else, so markup that slipped through still could not run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from shiftlens.analyses.density.figures import density_by_region, position_profile
from shiftlens.analyses.density.sensitivity_figure import sensitivity_map
from shiftlens.models.roles import ROLES
from shiftlens.report.evidence_parts import evidence_parts
from shiftlens.report.weights import PALETTE, weight_views
from shiftlens.results import sentence as sentences
from shiftlens.results.analysis import REGIONS, Analysis, SaliencyMap
from shiftlens.support.whole_files import write_text

MAX_ROWS = 500
"""Samples listed in the report; the page says so when there are more."""

_CUT = 160
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def write_report(analysis: Analysis, path: Path | str) -> Path:
    """Write the report of ``analysis`` to ``path``, whole or not at all.

    Args:
        analysis: the run.
        path: the HTML file.

    Returns:
        The file written.
    """
    return write_text(path, render_report(analysis))


def render_report(analysis: Analysis) -> str:
    """The report of ``analysis`` as HTML.

    Args:
        analysis: the run; ``provenance["models"]`` must name the base and the tuned model's source.

    Returns:
        A whole HTML document of about 5 MB, most of it plotly.js.

    Raises:
        KeyError: if the provenance names no models.

    Example:
        >>> none = pd.DataFrame()
        >>> models = {"base": {"source": "a<b"}, "tuned": {"source": "c"}}
        >>> page = render_report(Analysis([], none, none, none, [], {"models": models}))
        >>> "<h1>What changed between <em>a&lt;b</em> and <em>c</em></h1>" in page
        True
    """
    environment = templates()
    scripts = [Markup(get_plotlyjs()), Markup(environment.get_template("report.js.j2").render())]
    sensitivity, data = _sensitivity(analysis)
    pictures = [
        ("density", density_by_region(analysis)),
        ("profile", position_profile(analysis)),
        ("sensitivity", sensitivity),
    ]
    figures = {name: fig.to_plotly_json() for name, fig in pictures if fig.data}
    return environment.get_template("report.html.j2").render(
        models=analysis.provenance["models"],
        picture_b=dict(analysis.provenance.get("settings", {})).get("picture_b"),
        provenance=list(flat(analysis.provenance)),
        findings=analysis.findings,
        sentences=sentences,
        sensitivity_data=data,
        key_numbers=_key_numbers(analysis.samples),
        prompts=_prompts(analysis),
        rows=_sample_rows(analysis.samples),
        max_rows=MAX_ROWS,
        roles=ROLES,
        figures={name: script_json(figure) for name, figure in figures.items()},
        maps=script_json(_map_data(analysis)),
        weights=weight_views(analysis),
        evidence=evidence_parts(analysis),
        script_json=script_json,
        style=Markup(Path(__file__).with_name("report.css").read_text(encoding="utf-8")),
        scripts=scripts,
        policy=" ".join(script_hash(script) for script in scripts),
    )


def templates() -> jinja2.Environment:
    """The templates of this folder; what is put in is escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def script_json(value: Any) -> Markup:
    r"""``value`` as JSON that is safe inside ``<script>``: no markup can begin or end in it.

    Example:
        >>> print(script_json(["</script>"]))
        ["\u003c/script\u003e"]
    """
    return Markup(json.dumps(value, allow_nan=False, ensure_ascii=False).translate(_ESCAPES))


def _sensitivity(analysis: Analysis) -> tuple[go.Figure, str]:
    """The map of settings, of all data sets together where there are several, and what it shows."""
    table = analysis.tables.get("sensitivity")
    if table is None or not len(table):
        return go.Figure(), ""
    names = list(dict.fromkeys(table["data"]))
    return sensitivity_map(table, names[-1]), f"data: {names[-1]}"


def script_hash(script: str) -> Markup:
    """What the content security policy names a script by."""
    return Markup("'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'")


def _map_data(analysis: Analysis) -> dict[str, Any]:
    levels = dict(analysis.provenance.get("settings", {})).get("L")
    largest = max((int(m.score.max(initial=0)) for m in analysis.maps), default=1)
    maps = [
        {
            "role": m.role,
            "rows": list(m.prompt_tokens),
            "columns": list(m.response_tokens),
            "regions": [REGIONS.index(region) for region in m.regions],
            "density": [round(float(a), 4) if np.isfinite(a) else 0.0 for a in m.density],
            # Bytes, row-major: a tenth of the size of a JSON list.
            "score": base64.b64encode(np.ascontiguousarray(m.score, dtype=np.uint8).tobytes()).decode(),
        }
        for m in analysis.maps
    ]
    return {"levels": max(int(levels or 0), largest, 1), "regions": REGIONS, "colors": PALETTE, "maps": maps}


def _prompts(analysis: Analysis) -> list[dict[str, Any]]:
    """Maps grouped by prompt in order, each with its place in the embedded data."""
    texts: dict[str, str] = {}
    if "prompt" in analysis.samples:
        texts = dict(zip(analysis.samples["id"].astype(str), analysis.samples["prompt"].astype(str), strict=True))
    groups: dict[str, list[dict[str, Any]]] = {}
    for index, saliency in enumerate(analysis.maps):
        entry = {"index": index, "map": saliency, "heaviest": _heaviest(saliency)}
        groups.setdefault(saliency.prompt_id, []).append(entry)
    return [
        {"id": name, "text": texts.get(name, "".join(entries[0]["map"].prompt_tokens)), "maps": entries}
        for name, entries in groups.items()
    ]


def _heaviest(saliency: SaliencyMap, count: int = 5) -> list[str]:
    order = np.argsort(-np.nan_to_num(saliency.density), kind="stable")[:count]
    return [saliency.prompt_tokens[i].strip() or "␣" for i in order if saliency.density[i] > 0]


def _key_numbers(samples: pd.DataFrame) -> list[dict[str, Any]]:
    numbers = []
    for label, column, form in (
        ("Instruction score", "instruction_score", "{:.2f}"),
        ("Density of instruction tokens", "density_instruction", "{:.3f}"),
        ("Density of context tokens", "density_context", "{:.3f}"),
        ("Instructions followed", "followed", "{:.0%}"),
    ):
        if column in samples:
            means = [samples.loc[samples["role"] == role, column].dropna() for role in ROLES]
            if all(len(values) for values in means):
                base, tuned = (form.format(float(values.astype(float).mean())) for values in means)
                numbers.append({"label": label, "base": base, "tuned": tuned})
    return numbers


def _sample_rows(samples: pd.DataFrame) -> list[dict[str, Any]]:
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
    return list(rows.values())


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as lines of text, each under its path.

    Example:
        >>> list(flat({"a": {"b": 1, "c": [2, 3]}}))
        [('a.b', '1'), ('a.c', '2, 3')]
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield prefix, ", ".join(str(item) for item in value)
    else:
        yield prefix, "–" if value is None else str(value)
