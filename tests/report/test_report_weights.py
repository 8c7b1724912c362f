"""Sections of concepts and word pairs: what the tables say is on the page, and hostile words stay words."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.pages import embedded
from helpers.weight_tables import (
    CONCEPT_FINDINGS,
    FINDINGS,
    HOSTILE,
    make_analysis,
    make_tables,
    weight_charts,
)

from shiftlens.analyses.concepts.rotation_findings import not_comparable
from shiftlens.analyses.word_pairs.findings import pairs_finding
from shiftlens.report.log_analysis import log_analysis
from shiftlens.report.page import render_report
from shiftlens.report.wandb_sink import WandbSink
from shiftlens.results.analysis import Analysis
from shiftlens.results.sentence import sentence


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return make_tables()


@pytest.fixture(scope="module")
def hostile() -> Analysis:
    tables = make_tables(words=HOSTILE * 3)
    return make_analysis({**tables, "concepts": tables["concepts"].assign(note=HOSTILE[1])})


def test_page_counts_heads_that_changed(tables: dict[str, pd.DataFrame]) -> None:
    # One row of verbs is left, so the other kind has none.
    verbs = tables["head_verbs"].query("kind == 'general' and gained + lost > 0").head(1)
    heads = tables["head_pairs"].assign(gained=[3, 0, 0] * 4, lost=[0, 2, 0] * 4)
    page = render_report(make_analysis({**tables, "head_pairs": heads, "head_verbs": verbs}))
    assert (
        "Tuning changed the pairs of <b>8</b> of 12 heads; pairs with instruction verbs in <b>0</b>, with general verbs in 1."
        in page
    )
    # Heads without any pair with a verb.
    page = render_report(make_analysis({**tables, "head_pairs": heads, "head_verbs": verbs.iloc[:0]}))
    assert "<b>0</b>, with general verbs in 0." in page
    assert embedded(page, "data-pairs_instruction")["data"][0]["z"] == [[0] * 4] * 3
    # Their map is empty, so another is shown first.
    options = r'<option value="pairs_(\w+)"( selected)?>.*?(: no change)?</option>'
    assert re.findall(options, page) == [
        ("instruction", "", ": no change"),
        ("general", "", ": no change"),
        ("any", " selected", ""),
    ]
    page = render_report(make_analysis(tables))
    assert re.findall(options, page) == [("instruction", " selected", ""), ("general", "", ""), ("any", "", "")]


def test_verb_shares_are_drawn_where_two_verbs_of_each_kind_changed(tables: dict[str, pd.DataFrame]) -> None:
    rows = [("a", "instruction", "1"), ("b", "instruction", "1"), ("c", "general", "1"), ("d", "general", "2")]
    shares = pd.DataFrame(rows, columns=["verb", "kind", "layers"]).assign(share=0.5, n=2)
    few = {**tables, "verb_shares": shares}
    assert "verb_shares" not in weight_charts(few)  # the general verbs are at two depths
    page = render_report(make_analysis(few))
    told = page[page.index('<h3 id="h-verbs">') :]
    assert told.index("<li>") < told.index("Not drawn: at no depth") < told.index("</section>")
    assert 'id="figure-verb_shares"' not in page
    assert "verb_shares" in weight_charts({**tables, "verb_shares": shares.assign(layers="1")})
    unknown = shares.assign(layers="1", share=[0.5, None, 0.5, 0.5])
    assert "verb_shares" not in weight_charts({**tables, "verb_shares": unknown})


def test_sentences_of_the_weights() -> None:
    told = {f.name: sentence(f) for f in FINDINGS}
    assert told["concepts/rotation/1"] == (
        "On weights, the mean |cosine| of a concept and its match (quarter 1 of the depth) is higher for pair than "
        "for random rotation: 0.95 vs 0.17, mean matched |cosine| 0.95 [0.80, 1.00], p = 0.02, n = 12."
    )
    assert told["concepts/interpretable"] == (
        "On weights, the share of concepts that can be described is higher for tuned than for base: 62.0% vs 50.0%, "
        "difference in share 0.12 [0.05, 0.20], p = 0.001, corrected p = 0.009, n = 12."
    )
    # Below 0.05 alone, but not among all that was asked.
    assert told["concepts/level/syntax"] == (
        "On weights, the share of concepts about syntax shows no clear difference between base and tuned: 20.0% vs "
        "15.0%, difference in share -0.05 [-0.10, 0.00], p = 0.03, corrected p = 0.2, n = 12."
    )
    assert "concepts that serve coding is higher for base than for tuned: 4.0% vs" in told["concepts/task/coding"]
    verbs = "On weights, the share of changed heads that gained pairs with a verb"
    assert told["pairs/instruction_vs_general/all"].startswith(
        f"{verbs} (all layers) is higher for instruction than for general: 60.0% vs 50.0%, Hedges g 0.70"
    )
    assert told["pairs/instruction_vs_general/4"].startswith(
        f"{verbs} (quarter 4 of the depth) is not shown to be higher for instruction; the sample points the other way, "
        "to general: 50.0% vs 40.0%"
    )
    unclear = replace(FINDINGS[5], p=0.3, ci=(-0.1, 0.9))
    assert "shows no clear difference between instruction and general: 60.0% vs 50.0%" in sentence(unclear)
    untestable = replace(FINDINGS[5], p=None, effect=None, why_not="the weights are the same")
    assert sentence(untestable) == "What? Not testable on weights: the weights are the same."
    assert [f.headline for f in FINDINGS] == [True, False, True, False, False, True, False]


def test_page_tells_the_numbers_of_the_tables(tables: dict[str, pd.DataFrame]) -> None:
    page = render_report(make_analysis(tables))
    turned = tables["rotation_layers"]
    assert f"a mean |cosine| of <b>{turned['mean_cosine'].mean():.3f}</b> (random: 0.170)" in page
    worst = turned.loc[turned["mean_cosine"].idxmin()]
    assert f"Layer {worst['layer']:.0f} turned most ({worst['mean_cosine']:.3f})" in page
    keywords = tables["concept_keywords"]
    rows = re.findall(
        r'<tr><th scope="row">(key \w+)</th><td class="r">(\d+)</td><td class="r">(\d+)</td><td class="r">([+-][\d.]+)',
        page,
    )
    top, bottom = keywords.nlargest(9, "rise"), keywords.nsmallest(9, "rise")
    expected = [
        (r.keyword, str(r.base_count), str(r.tuned_count), f"{r.rise:+g}")
        for part in (top, bottom)
        for r in part.itertuples()
        if r.rise
    ]
    assert rows == expected
    # Headlines stand on top, and every finding of the weights beside its figure.
    for found in FINDINGS:
        assert page.count(f"<li>{html.escape(sentence(found))}</li>") == 1 + found.headline, found.name


def test_layers_that_are_the_same_are_said_to_be(tables: dict[str, pd.DataFrame]) -> None:
    why = "base and tuned have the same concepts, nothing turned"
    untestable = {"rotation": [replace(f, p=None, effect=None, why_not=why) for f in CONCEPT_FINDINGS["rotation"]]}
    for equal, layers in ((4, [0, 1, 2, 3]), (2, [1, 3])):
        rows = tables["rotation_layers"]
        changed = {**tables, "rotation_layers": rows.assign(equal=rows["layer"].isin(layers))}
        page = render_report(make_analysis(changed, concept_findings=untestable, pair_findings=[]))
        assert ("tuning left them alone" in page) == (equal == 4)
        assert ("Nothing turned." in page) == (equal == 4)
        assert ("The weights of 2 layers are the same in both." in page) == (equal == 2)
        assert page.count(f"2 questions are not testable: {why}.") == 1


def parts_of(page: str) -> list[str]:
    """Titles of the page's sections and of the parts within them, in order."""
    body = page.partition("<body>")[2].partition("<script>")[0]
    return [html.unescape(text) for text in re.findall(r"<h[23] id=[^>]*>(.*?)</h[23]>", body)]


CONCEPTS, PAIRS = "What the feed-forward layers write: concepts", "What the attention heads relate: word pairs"


def test_both_sections_have_their_parts_in_order(tables: dict[str, pd.DataFrame]) -> None:
    assert parts_of(render_report(make_analysis(tables))) == [
        "Findings",
        CONCEPTS,
        "How much of a layer its concepts hold",
        "How far tuning turned the concepts",
        "Linguistic level over the depth",
        "What the concepts could serve",
        "Words of the descriptions that rose and fell",
        PAIRS,
        "Instruction verbs against general verbs",
    ]


def test_without_tables_nothing_is_shown(tables: dict[str, pd.DataFrame]) -> None:
    body = render_report(make_analysis({})).partition("<body>")[2].partition("<script>")[0]
    for word in ("concept", "weights", "h-variance", "h-rotation", "h-levels", "h-tasks", "pairs", "h-verbs"):
        assert word not in body
    # Models that cannot be compared: concepts of each, and nothing that compares.
    alone = {name: tables[name] for name in ("concepts", "explained_variance")}
    page = render_report(make_analysis(alone))
    assert parts_of(page) == ["Findings", CONCEPTS, "How much of a layer its concepts hold"]
    assert "cannot be matched" in page
    assert embedded(page, "data-concepts")["layers"][0]["match"] is None
    empty = {name: table.iloc[:0] for name, table in tables.items()}
    assert parts_of(render_report(make_analysis(empty, concept_findings={}, pair_findings=[]))) == ["Findings"]


def test_sections_of_models_that_cannot_be_compared_say_why(tables: dict[str, pd.DataFrame]) -> None:
    layers, heads, none = "base has 2 layers, tuned 3", "base has 4 heads, tuned 8", np.zeros(0)
    alone = {name: tables[name] for name in ("concepts", "explained_variance")}
    word_pairs = pd.DataFrame({"role": ["base"], "layer": 0, "head": 0, "word_a": "a", "word_b": "b"})
    page = render_report(
        make_analysis(
            {**alone, "word_pairs": word_pairs},
            concept_findings={"rotation": [not_comparable(layers)]},
            pair_findings=[pairs_finding("all", none, none, 0, 0, heads)],
        )
    )
    assert parts_of(page) == ["Findings", CONCEPTS, "How much of a layer its concepts hold", PAIRS]
    sections = page.split("<section")
    for title, why in ((CONCEPTS, layers), (PAIRS, heads)):
        (section,) = (part for part in sections if f">{title}</h2>" in part)
        assert (
            f"Not testable on {'feed-forward layers' if title == CONCEPTS else 'attention heads'}: {why}."
            in section
        )
    # Descriptions that are not complete: the rotation is told, and why the rest is not.
    stopped = replace(CONCEPT_FINDINGS["interpretable"][0], p=None, why_not="4 done, budget spent")
    some = {name: tables[name] for name in ("concepts", "explained_variance", "rotation", "rotation_layers")}
    findings = {"rotation": CONCEPT_FINDINGS["rotation"], "interpretable": [stopped]}
    page = render_report(make_analysis(some, concept_findings=findings))
    (section,) = (part for part in page.split("<section") if f">{CONCEPTS}</h2>" in part)
    assert "Not testable on weights: 4 done, budget spent." in section


def test_hostile_words_are_escaped(hostile: Analysis) -> None:
    page = render_report(hostile)
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert "<img" not in outside
    assert "window.hacked=1</script" not in page
    for name, fig in weight_charts(hostile.tables).items():
        text = json.dumps(fig.to_dict(), ensure_ascii=False)
        assert "<img" not in text and "<script" not in text, name


def test_charts_reach_wandb(
    tables: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(project="test", save_dir=str(tmp_path), settings=wandb.Settings(x_disable_stats=True))
    logged: dict = {}
    monkeypatch.setattr(logger.experiment, "log", lambda media, **_: logged.update(media))
    log_analysis(make_analysis(tables), [WandbSink(logger)], None)
    wandb.finish()
    charts = {name for name in logged if name.startswith("charts/")}
    assert charts == {f"charts/{name}" for name in weight_charts(tables)}
    assert {"charts/rotation", "charts/tasks", "charts/pairs_any", "charts/verb_shares"} <= charts
    assert all(isinstance(logged[name], wandb.Plotly) for name in charts)
    table = logged["tables/concepts"]
    words = table.columns.index("words")
    assert [row[words] for row in table.data] == tables["concepts"]["words"].tolist()
