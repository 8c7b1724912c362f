"""Builds the section of the word pairs of attention heads: which heads changed, and for which verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shiftlens.analyses.word_pairs.compute import (
    KINDS,
    Verbs,
    head_pairs_table,
    head_verbs_table,
    verb_counts_by_head,
    verb_shares,
    word_pairs_table,
)
from shiftlens.analyses.word_pairs.figures import KIND_COLORS, head_changes
from shiftlens.analyses.word_pairs.figures import verb_shares as verb_shares_figure
from shiftlens.analyses.word_pairs.findings import pairs_finding, verb_findings
from shiftlens.models.roles import ROLES
from shiftlens.results.finding import Finding
from shiftlens.results.render import render
from shiftlens.results.section import Section
from shiftlens.weights.by_layer import ModelPairs
from shiftlens.weights.depth import depth_parts

_HERE = Path(__file__).parent


def pairs_section(models: Mapping[str, ModelPairs], verbs: Verbs, seed: int = 0) -> Section:
    """Compare the word pairs of two models, and return tables, tests and figures as a section.

    Args:
        models: Word pairs of the model of each role, over the same words.
        verbs: For each kind, ``instruction`` and ``general``, the lower-case words that stand for each verb.
        seed: Random seed for the bootstrap and the permutations.

    Returns:
        Findings ``pairs/instruction_vs_general/all`` and ``.../1`` to ``4`` by quarter of the depth; tables

        - ``word_pairs``: ``role, layer, head, word_a, word_b``;
        - ``head_pairs``: ``layer, head, base, tuned, gained, lost``, numbers of pairs;
        - ``head_verbs``: ``layer, head, verb, kind, base, tuned, gained, lost``, numbers of pairs with a verb,
          for heads that have any;
        - ``verb_shares``: ``verb, kind, layers, share, more, fewer, n``: of the ``n`` heads where the number of
          pairs with the verb changed, the share where it rose; NaN where it changed in no head.

        Models with different layers or heads have only the table ``word_pairs``, and one finding with the reason.

    Example:
        >>> forms, none = ("poem", "write"), np.zeros((0, 2), int)
        >>> base, tuned = (ModelPairs(forms, 1, (0,), {0: [pairs]}) for pairs in (none, np.array([[0, 1]])))
        >>> verbs = {"instruction": {"write": ["write"]}, "general": {}}
        >>> section = pairs_section({"base": base, "tuned": tuned}, verbs)
        >>> section.tables["verb_shares"][["verb", "layers", "share", "n"]].values.tolist()
        [['write', '1', 1.0, 1], ['write', 'all', 1.0, 1]]
    """
    return assemble(*pairs_results(models, verbs, seed))


def pairs_results(
    models: Mapping[str, ModelPairs], verbs: Verbs, seed: int = 0
) -> tuple[list[Finding], dict[str, pd.DataFrame]]:
    """Return the findings and tables of :func:`pairs_section`, without figures and HTML.

    Args:
        models: Word pairs of the model of each role, over the same words.
        verbs: For each kind, ``instruction`` and ``general``, the lower-case words that stand for each verb.
        seed: Random seed for the bootstrap and the permutations.
    """
    tables = {"word_pairs": word_pairs_table(models)}
    base, tuned = (models[role] for role in ROLES)
    if (base.depth, base.heads, base.forms) != (tuned.depth, tuned.heads, tuned.forms):
        why_not = (
            f"base has {base.depth} layers and {len(base.heads)} heads looked at in each, "
            f"tuned {tuned.depth} and {len(tuned.heads)}"
        )
        nothing = np.zeros(0)
        return [pairs_finding("all", nothing, nothing, 0, seed, why_not)], tables
    counts = verb_counts_by_head(
        base, tuned, {verb: words for kind in KINDS for verb, words in verbs[kind].items()}
    )
    kinds = {verb: kind for kind in KINDS for verb in verbs[kind]}
    shares = verb_shares(counts["base"], counts["tuned"], kinds, depth_parts(list(base.layers), base.depth))
    tables |= {
        "head_pairs": head_pairs_table(base, tuned),
        "head_verbs": head_verbs_table(base, counts, kinds),
        "verb_shares": shares,
    }
    return verb_findings(shares, seed), tables


def assemble(findings: Sequence[Finding], tables: Mapping[str, pd.DataFrame]) -> Section:
    """Build the section from its findings and tables, and leave out the figures that have no data.

    Args:
        findings: Tests of :func:`pairs_section`.
        tables: Tables of :func:`pairs_section`.
    """
    figures: dict[str, go.Figure] = {}
    if len(tables.get("head_pairs", ())):
        for kind in (*KINDS, "any"):
            figures[f"pairs_{kind}"] = head_changes(tables["head_pairs"], tables["head_verbs"], kind)
    shares = tables.get("verb_shares")
    if shares is not None and _comparable(shares):
        figures["verb_shares"] = verb_shares_figure(shares)
    judged = Section(findings).findings
    html = render(_HERE / "section.html.j2", figures=figures, findings=judged, changed=_changed(tables))
    return Section(
        findings=judged,
        tables=tables,
        title="What the attention heads relate: word pairs" if html.strip() else "",
        figures=figures,
        html=html,
        rank=81,
        script=(_HERE / "picker.js").read_text(encoding="utf-8"),
    )


def _comparable(shares: pd.DataFrame) -> bool:
    """Return whether some part of the depth has at least two changed verbs of each kind, enough for a mean."""
    counts = shares[shares["share"].notna()].groupby(["layers", "kind"]).size().unstack(fill_value=0)
    return all(kind in counts for kind in KIND_COLORS) and bool((counts >= 2).all(axis=1).any())


def _changed(tables: Mapping[str, pd.DataFrame]) -> dict[str, int] | None:
    """Count all heads, and the heads that gained or lost pairs, by kind of the words; ``None`` without tables."""
    if "head_pairs" not in tables:
        return None
    heads, verbs = tables["head_pairs"], tables["head_verbs"]
    counts = {"heads": len(heads), "any": int((heads["gained"] + heads["lost"] > 0).sum())}
    for kind in KIND_COLORS:
        rows = verbs[(verbs["kind"] == kind) & (verbs["gained"] + verbs["lost"] > 0)]
        counts[kind] = len(rows[["layer", "head"]].drop_duplicates())
    return counts
