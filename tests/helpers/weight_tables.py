"""Made-up tables and findings of the weight views, in the shape that the views give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shiftlens.analyses.concepts import section as concepts_section
from shiftlens.analyses.word_pairs import section as pairs_section
from shiftlens.models.roles import ROLES
from shiftlens.results.analysis import Analysis
from shiftlens.results.finding import Finding, Group
from shiftlens.results.section import Section

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    '<img src=x onerror="window.hacked=1">',
    "]]><!--<script>",
    "naïve 日本 \U0001f600",
    "<b>bold</b>",
    "a & b",
)
WORDS = (
    *[
        "write",
        "poem",
        "story",
        "letter",
        "rhyme",
        "verse",
        "essay",
        "draft",
        "sum",
        "count",
        "number",
        "add",
        "equal",
        "prove",
        "file",
        "code",
        "loop",
        "array",
    ],
)
LEVELS = ("phonology", "morphology", "syntax", "semantics")
TASKS = ("writing", "math", "coding", "translation")
MODELS = {"models": {role: {"source": f"org/{role}"} for role in ROLES}}


def make_tables(
    layers: int = 4, k: int = 30, top: int = 6, heads: int = 3, words: tuple[str, ...] = WORDS, verbs: int = 12
) -> dict[str, pd.DataFrame]:
    """Tables of the shape that the views make, of a pair whose last layers turned most."""
    rng = np.random.default_rng(0)
    concepts, rotation, turned = [], [], []
    for layer in range(layers):
        match = np.roll(np.arange(k), layer % 3)
        listed = {role: [list(rng.choice(len(words), top, replace=False)) for _ in range(k)] for role in ROLES}
        for i, j in enumerate(match):
            kept = listed["base"][i][: top - 1 - layer % top]
            new = [w for w in listed["tuned"][j] if w not in kept]
            listed["tuned"][j] = (kept + new)[:top]
        for role in ROLES:
            share = np.exp(-np.arange(k) / (0.3 * k))
            share *= (0.3 + 0.2 * rng.random()) / share.sum()
            for i in range(k):
                told = rng.random() < 0.7
                concepts.append({
                    "role": role, "layer": layer, "component": i, "ratio": share[i], "cumulative": share[: i + 1].sum(),
                    "words": [words[w] for w in listed[role][i]], "cosines": list(np.linspace(0.4, 0.2, top)),
                    "description": f"words like {words[listed[role][i][0]]}" if told else None,
                    "level": LEVELS[i % 4] if told else None, "task": (*TASKS, "none")[i % 5] if told else None,
                    "p": 0.01 if told else 0.4, "note": "",
                })  # fmt: skip
        cosine = np.clip(0.99 - 0.4 * layer / layers - 0.3 * rng.random(k), 0.05, 1)
        for i, j in enumerate(match):
            before, after = (set(listed["base"][i]), set(listed["tuned"][j]))
            rotation.append({
                "layer": layer, "component": i, "matched": int(j), "cosine": cosine[i],
                "entered": [words[w] for w in sorted(after - before)], "left": [words[w] for w in sorted(before - after)],
                "n_entered": len(after - before), "n_left": len(before - after), "angle": 3.0 + i,
            })  # fmt: skip
        turned.append({
"layer": layer, "components": k, "width": 4 * k, "equal": False, "mean_cosine": cosine.mean(), "mean_angle": 8.0 + 20 * layer / layers,
            "overlap": 0.9, "mean_left": 1.0 + layer, "null_cosine_low": 0.15, "null_cosine_mean": 0.17, "null_cosine_high": 0.19,
            "null_angle_low": 58.0, "null_angle_mean": 60.0, "null_angle_high": 62.0,
        })  # fmt: skip
    frame = pd.DataFrame(concepts)
    shares = []
    classes = [("interpretable", "interpretable"), *(("level", n) for n in LEVELS), *(("task", n) for n in TASKS)]
    for c, (kind, name) in enumerate(classes):
        for part in ("1", "2", "3", "4", "all"):
            base = (0.6 if c == 0 else 0.2) * (0.5 + 0.5 * rng.random())
            tuned = base + 0.05 * rng.normal()
            shares.append({"kind": kind, "class": name, "layers": part, "base": base, "tuned": tuned, "difference": tuned - base, "n": k, "gained": 7 + c, "lost": 3})  # fmt: skip
    keywords = pd.DataFrame(
        {"keyword": [f"key {w}" for w in words], "base_count": 3, "tuned_count": range(len(words))}
    )
    keywords["rise"] = np.linspace(5, -5, len(words)).round(1)
    head_rows, verb_rows, share_rows = [], [], []
    names = {
        "instruction": [f"{w}{i}" for i, w in enumerate(words)][:verbs],
        "general": [f"go{i}" for i in range(3 * verbs)],
    }
    for layer in range(layers):
        for head in range(heads):
            head_rows.append({"layer": layer, "head": head, "base": 40, "tuned": 40, "gained": int(rng.integers(20)), "lost": int(rng.integers(20))})  # fmt: skip
            for kind, listed in names.items():
                for verb in rng.choice(listed, min(4, len(listed)), replace=False):
                    gained, lost = (
                        int(n) for n in rng.poisson((1.6, 1.0) if kind == "instruction" else (1.2, 1.2))
                    )
                    verb_rows.append({"layer": layer, "head": head, "verb": str(verb), "kind": kind, "base": 2, "tuned": 2 + gained - lost, "gained": gained, "lost": lost})  # fmt: skip
    for kind, listed in names.items():
        for verb in listed:
            for part in ("1", "2", "3", "4", "all"):
                n = int(rng.integers(0, 30))
                more = int(rng.binomial(n, 0.6 if kind == "instruction" else 0.5))
                share_rows.append({"verb": verb, "kind": kind, "layers": part, "share": more / n if n else np.nan, "more": more, "fewer": n - more, "n": n})  # fmt: skip
    return {
        "concepts": frame, "explained_variance": frame[["role", "layer", "component", "ratio", "cumulative"]],
        "rotation": pd.DataFrame(rotation), "rotation_layers": pd.DataFrame(turned), "annotation_shares": pd.DataFrame(shares),
        "concept_keywords": keywords, "head_pairs": pd.DataFrame(head_rows), "head_verbs": pd.DataFrame(verb_rows),
        "verb_shares": pd.DataFrame(share_rows),
    }  # fmt: skip


def finding(
    name: str,
    groups: dict[str, Group],
    effect: float,
    ci: tuple[float, float],
    p: float | None,
    measure: str,
    corrected: float | None = None,
    **more: Any,
) -> Finding:
    head = (name, name.split("/")[0], "weights", "both", "What?", "no difference", "a test", 12, groups, effect)
    usual = {"effect_name": "Hedges g", "ci": ci, "p": p, "p_corrected": corrected, "measure": measure}
    return Finding(*head, **{**usual, **more})


_COSINE, _GAINED = (
    "mean |cosine| of a concept and its match",
    "share of changed heads that gained pairs with a verb",
)
_TURNED: dict[str, Any] = {"effect_name": "mean matched |cosine|", "expected": "pair"}
_SHARE: dict[str, Any] = {"effect_name": "difference in share", "unit": "%"}
_VERBS: dict[str, Any] = {"expected": "instruction", "unit": "%"}
CONCEPT_FINDINGS = {
    "rotation": [
        finding("concepts/rotation/all", {"pair": Group(0.9, 0.1, 4), "random rotation": Group(0.17, 0.01, 20)}, 0.9, (0.8, 1.0), 0.01, _COSINE + " (all layers)", **_TURNED),
        finding("concepts/rotation/1", {"pair": Group(0.95, 0.1, 1), "random rotation": Group(0.17, 0.01, 20)}, 0.95, (0.8, 1.0), 0.02, _COSINE + " (quarter 1 of the depth)", headline=False, **_TURNED),
    ],
    "interpretable": [
        finding("concepts/interpretable", {"base": Group(0.5, 0.5, 12), "tuned": Group(0.62, 0.5, 12)}, 0.12, (0.05, 0.2), 0.001, "share of concepts that can be described", 0.009, **_SHARE),
    ],
    "level": [
        finding("concepts/level/syntax", {"base": Group(0.2, 0.4, 12), "tuned": Group(0.15, 0.4, 12)}, -0.05, (-0.1, 0.0), 0.03, "share of concepts about syntax", 0.2, headline=False, **_SHARE),
    ],
    "task": [
        finding("concepts/task/coding", {"base": Group(0.04, 0.2, 12), "tuned": Group(0.02, 0.1, 12)}, -0.02, (-0.03, -0.01), 0.002, "share of concepts that serve coding", 0.03, headline=False, **_SHARE),
    ],
}  # fmt: skip
PAIR_FINDINGS = [
    finding("pairs/instruction_vs_general/all", {"instruction": Group(0.6, 0.1, 4), "general": Group(0.5, 0.1, 8)}, 0.7, (0.2, 1.1), 0.004, _GAINED + " (all layers)", **_VERBS),
    finding("pairs/instruction_vs_general/4", {"instruction": Group(0.4, 0.1, 4), "general": Group(0.5, 0.1, 8)}, -0.7, (-1.1, -0.2), 0.99, _GAINED + " (quarter 4 of the depth)", 1.0, headline=False, **_VERBS),
]  # fmt: skip
FINDINGS = (*(f for some in CONCEPT_FINDINGS.values() for f in some), *PAIR_FINDINGS)
PAIR_TABLES = ("word_pairs", "head_pairs", "head_verbs", "verb_shares")


def weight_sections(
    tables: Mapping[str, pd.DataFrame],
    concept_findings: Mapping[str, list[Finding]] = CONCEPT_FINDINGS,
    pair_findings: Sequence[Finding] = PAIR_FINDINGS,
) -> list[Section]:
    """The sections of concepts and of word pairs, each where there are tables of its kind."""
    of_pairs = {name: table for name, table in tables.items() if name in PAIR_TABLES}
    of_concepts = {name: table for name, table in tables.items() if name not in PAIR_TABLES}
    sections = []
    if of_concepts:
        sections.append(concepts_section.assemble(concept_findings, of_concepts))
    if of_pairs:
        sections.append(pairs_section.assemble(pair_findings, of_pairs))
    return sections


def weight_charts(tables: Mapping[str, pd.DataFrame]) -> dict[str, go.Figure]:
    """The figures of both sections, by name."""
    return {name: figure for section in weight_sections(tables) for name, figure in section.figures.items()}


def make_analysis(tables: Mapping[str, pd.DataFrame], **findings: Any) -> Analysis:
    """A run that looked at the weights alone."""
    return Analysis(weight_sections(tables, **findings), MODELS)
