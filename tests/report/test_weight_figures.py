"""Figures of concepts and word pairs show the numbers of the tables."""

from __future__ import annotations

import html
import json

import pandas as pd
import pytest
from helpers.weight_tables import TASKS, make_tables, weight_charts

from shiftlens.models.roles import ROLES

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return make_tables()


def test_figures_show_the_tables(tables: dict[str, pd.DataFrame]) -> None:
    charts = weight_charts(tables)
    variance = tables["explained_variance"].query("role == 'tuned' and layer == 3")
    first = [t for t in charts["explained_variance"].data if t.name == "tuned"]
    assert list(first[2].y) == pytest.approx((100 * variance["cumulative"]).tolist(), abs=1e-3)
    turned = tables["rotation_layers"]
    lines = [t for t in charts["rotation"].data if t.name == "tuned against base"]
    for line, column in zip(lines, ("mean_cosine", "mean_angle", "mean_left"), strict=True):
        assert list(line.y) == turned[column].tolist()
    bands = [t for t in charts["rotation"].data if t.fill]
    assert [(min(b.y), max(b.y)) for b in bands] == [(0.15, 0.19), (58.0, 62.0)]
    shares = tables["annotation_shares"].set_index(["class", "layers"])
    syntax = [t for t in charts["linguistic_levels"].data if t.xaxis == "x4"]
    assert [a.text for a in charts["linguistic_levels"].layout.annotations][3] == "syntax"
    for trace in syntax:
        assert list(trace.y) == pytest.approx(
            [100 * shares.loc[("syntax", q), trace.name] for q in "1234"], abs=1e-3
        )
    dots = {t.name: t for t in charts["tasks"].data if t.name in ROLES}
    assert list(dots["base"].y) == list(TASKS)
    assert list(dots["tuned"].x) == pytest.approx([100 * shares.loc[(n, "all"), "tuned"] for n in TASKS], abs=1e-3)
    assert all("bdata" not in json.dumps(fig.to_dict()) for fig in charts.values())


def test_head_map_counts_pairs_of_each_kind(tables: dict[str, pd.DataFrame]) -> None:
    charts = weight_charts(tables)
    for kind in ("instruction", "general", "any"):
        expected: dict[tuple[str, str], int] = {}
        rows = tables["head_pairs"] if kind == "any" else tables["head_verbs"].query("kind == @kind")
        for row in rows.itertuples():
            key = (str(row.layer), str(row.head))
            expected[key] = expected.get(key, 0) + row.gained - row.lost
        heatmap = charts[f"pairs_{kind}"].data[0]
        drawn = {(x, y): heatmap.z[j][i] for j, y in enumerate(heatmap.y) for i, x in enumerate(heatmap.x)}
        assert drawn == expected
        assert heatmap.zmin == -heatmap.zmax
    verbs = tables["head_verbs"].query("kind == 'instruction' and layer == 2 and head == 1")
    label = charts["pairs_instruction"].data[0].text[1][2]
    assert label.startswith(f"{verbs['gained'].sum()} gained, {verbs['lost'].sum()} lost")
    for row in verbs.itertuples():
        change = (f" +{row.gained}" if row.gained else "") + (f" −{row.lost}" if row.lost else "")
        assert (f"{html.escape(row.verb)}{change}" in label) == bool(change)


def test_a_head_not_looked_at_has_no_cell(tables: dict[str, pd.DataFrame]) -> None:
    part = {**tables, "head_pairs": tables["head_pairs"].query("not (layer == 1 and head == 2)")}
    heatmap = weight_charts(part)["pairs_any"].data[0]
    assert heatmap.z[2][1] is None
    assert sum(value is None for row in heatmap.z for value in row) == 1


def test_verb_shares_show_each_verb_and_the_means(tables: dict[str, pd.DataFrame]) -> None:
    known = tables["verb_shares"].dropna(subset="share")
    fig = weight_charts(tables)["verb_shares"]
    dots = {t.name: t for t in fig.data if t.name}
    for kind in ("instruction", "general"):
        rows = known[known["kind"] == kind]
        assert list(dots[f"{kind} verbs"].y) == pytest.approx((100 * rows["share"]).tolist(), abs=0.01)
        # Each dot stands over its own part of the depth.
        depth = [("1", "2", "3", "4", "all")[round(x)] for x in dots[f"{kind} verbs"].x]
        assert depth == rows["layers"].tolist()
        means = next(t for t in fig.data if t.legendgroup == kind and not t.name)
        values = rows.loc[rows["layers"] == "2", "share"].tolist()
        mean = sum(values) / len(values)
        se = (sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)) ** 0.5
        assert means.y[1] == pytest.approx(100 * mean, abs=0.01)
        assert means.error_y.array[1] == pytest.approx(196 * se, abs=0.01)
