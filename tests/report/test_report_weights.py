"""The report's part on the weights: what the tables say is on the page, and hostile words stay words."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.weight_tables import FINDINGS, HOSTILE, TASKS, make_analysis, make_tables
from shiftlens.report.weights import weight_charts

from shiftlens.analyses.concepts.browser import pack_concepts
from shiftlens.models.roles import ROLES
from shiftlens.report.page import render_report, write_report
from shiftlens.results.analysis import Analysis
from shiftlens.results.sentence import headline, sentence

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return make_tables()


@pytest.fixture(scope="module")
def hostile() -> Analysis:
    tables = make_tables(words=HOSTILE * 3)
    concepts = tables["concepts"].assign(note=HOSTILE[1])
    return make_analysis({**tables, "concepts": concepts})


def embedded(page: str, name: str) -> dict:
    """JSON of a script block, cut out as an HTML parser does: up to the first closing tag."""
    found = re.search(rf'<script type="application/json"[^>]* id="{name}">(.*?)</script', page, re.S | re.I)
    assert found is not None
    return json.loads(found.group(1))


def unpacked_words(packed: dict, role: str, layer: int) -> list[list[tuple[str, bool]]]:
    """Words and marks of each concept, read byte by byte as the page's script does."""
    part = packed["layers"][layer][role]
    raw, bits = base64.b64decode(part["words"]), base64.b64decode(part["marks"])
    size, top = packed["word_bytes"], packed["top"]
    numbers = [int.from_bytes(raw[i : i + size], "little") for i in range(0, len(raw), size)]
    marks = [bool(bits[i // 8] >> (7 - i % 8) & 1) for i in range(len(numbers))]
    words = [(packed["strings"][n], mark) for n, mark in zip(numbers, marks, strict=True)]
    return [[word for word in words[i : i + top] if word[0]] for i in range(0, len(words), top)]


def check_packed(packed: dict, tables: dict[str, pd.DataFrame]) -> None:
    concepts, rotation = tables["concepts"], tables["rotation"]
    for place, layer in enumerate(sorted(concepts["layer"].unique())):
        turned = rotation[rotation["layer"] == layer].set_index("component")
        listed = {role: unpacked_words(packed, role, place) for role in ROLES}
        for row in concepts[(concepts["layer"] == layer) & (concepts["component"] < packed["kept"])].itertuples():
            if row.role == "base":
                only = turned.loc[row.component, "left"]
            else:
                only = turned[turned["matched"] == row.component].iloc[0]["entered"]
            assert listed[row.role][row.component] == [(word, word in only) for word in row.words]
            part = packed["layers"][place][row.role]
            told = packed["strings"][part["description"][row.component]]
            level, task = part["level"][row.component], part["task"][row.component]
            assert told == ("" if pd.isna(row.description) else row.description)
            for name, number, names in ((row.level, level, "levels"), (row.task, task, "tasks")):
                assert number == 0 if pd.isna(name) else packed[names][number - 1] == name
            assert part["ratio"][row.component] == pytest.approx(row.ratio, rel=0.01)
        assert packed["layers"][place]["match"] == turned["matched"].tolist()[: packed["kept"]]
        assert packed["layers"][place]["cosine"] == pytest.approx(turned["cosine"][: packed["kept"]], abs=1e-4)


def test_packed_concepts_are_those_of_the_tables(tables: dict[str, pd.DataFrame], hostile: Analysis) -> None:
    for run in (tables, dict(hostile.tables)):
        packed = embedded(render_report(make_analysis(run)), "data-concepts")
        assert packed["kept"] == packed["components"] == 30
        check_packed(packed, run)


def test_many_words_take_four_bytes_each(tables: dict[str, pd.DataFrame]) -> None:
    # 70,000 different words are more than two bytes can number.
    words = [[f"w{i * 1250 + j}" for j in range(1250)] for i in range(56)]
    rows = pd.DataFrame(
        {"role": ["base", "tuned"] * 28, "layer": 0, "component": np.arange(56) // 2, "ratio": 0.1, "note": ""}
    )
    rows = rows.assign(words=words, description=None, level=None, task=None)
    packed = pack_concepts(rows, None)
    assert packed["word_bytes"] == 4
    assert [word for word, _ in unpacked_words(packed, "tuned", 0)[27]] == words[55]


def test_large_runs_embed_their_first_concepts_and_say_so(
    tables: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pack_concepts(tables["concepts"], tables["rotation"])
    limit = len(json.dumps(whole, ensure_ascii=False)) // 2
    packed = pack_concepts(tables["concepts"], tables["rotation"], limit)
    assert 10 <= packed["kept"] < 20
    assert limit // 2 < len(json.dumps(packed, ensure_ascii=False)) <= limit + 40  # the two counts are added after
    check_packed(packed, tables)
    monkeypatch.setattr("shiftlens.report.weights.pack_concepts", lambda *_: packed)
    assert f"The first {packed['kept']} of 30 concepts of each layer are here" in render_report(
        make_analysis(tables)
    )


def test_full_size_run_stays_below_the_limit() -> None:
    rng = np.random.default_rng(0)
    listed = [[f"some-word-{n}" for n in row] for row in rng.integers(0, 20_000, (30 * 300 * 2, 30))]
    grid = pd.MultiIndex.from_product([ROLES, range(30), range(300)], names=["role", "layer", "component"])
    concepts = pd.DataFrame(index=grid).reset_index()
    concepts = concepts.assign(words=listed, ratio=0.001, level="syntax", task="none", note="")
    concepts["description"] = [f"words about {a} and {b}" for a, b, *_ in listed]
    packed = pack_concepts(concepts, None)
    assert len(json.dumps(packed, ensure_ascii=False)) < 3_001_000
    assert packed["kept"] > 200


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
    told = page[page.index('<h2 id="h-verbs">') :]
    assert told.index("<li>") < told.index("Not drawn: at no depth") < told.index("</section>")
    assert 'id="figure-verb_shares"' not in page
    assert "verb_shares" in weight_charts({**tables, "verb_shares": shares.assign(layers="1")})
    unknown = shares.assign(layers="1", share=[0.5, None, 0.5, 0.5])
    assert "verb_shares" not in weight_charts({**tables, "verb_shares": unknown})


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


def test_sentences_of_the_weights() -> None:
    told = {f.name: sentence(f) for f in FINDINGS}
    assert told["concepts/rotation/1"] == (
        "In quarter 1 of the depth, a base concept and the tuned concept it became have a mean |cosine| of 0.950; "
        "between unrelated subspaces it would be 0.170 (p = 0.02)."
    )
    assert told["concepts/interpretable"] == (
        "The share of concepts that can be described rose: 50.0% before and 62.0% after tuning, "
        "+12.0 [+5.0, +20.0] points, p = 0.001, corrected 0.009, n = 12 pairs."
    )
    # Below 0.05 alone, but not among all that was asked.
    assert "about syntax shows no clear change: 20.0% before" in told["concepts/level/syntax"]
    assert told["concepts/task/coding"].startswith("The share of concepts that serve coding fell: 4.0% before")
    assert (
        "raised pairs with instruction verbs in more heads than pairs with general verbs: instruction verbs in 60%"
        in told["pairs/instruction_vs_general/all"]
    )
    assert (
        "opposite to the direction tested, tuning raised pairs with general verbs in more heads: instruction verbs in 40%"
        in told["pairs/instruction_vs_general/4"]
    )
    unclear = replace(FINDINGS[5], p=0.3, ci=(-0.1, 0.9))
    assert "pairs with instruction verbs did not clearly rise" in sentence(unclear)
    untestable = replace(FINDINGS[5], p=None, effect=None, note="not testable: the weights are the same")
    assert sentence(untestable) == "What? Not testable on weights: the weights are the same."
    assert [headline(f) for f in FINDINGS] == [True, False, True, False, False, True, False]


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
        assert page.count(f"<li>{html.escape(sentence(found))}</li>") == 1 + headline(found), found.name


def test_layers_that_are_the_same_are_said_to_be(tables: dict[str, pd.DataFrame]) -> None:
    why = "not testable: base and tuned have the same concepts, nothing turned"
    untestable = [replace(f, p=None, effect=None, note=why) for f in FINDINGS[:2]]
    for equal, layers in ((4, [0, 1, 2, 3]), (2, [1, 3])):
        rows = tables["rotation_layers"]
        changed = {**tables, "rotation_layers": rows.assign(equal=rows["layer"].isin(layers))}
        page = render_report(replace(make_analysis(changed), findings=untestable))
        assert ("tuning left them alone" in page) == (equal == 4)
        assert ("Nothing turned." in page) == (equal == 4)
        assert ("The weights of 2 layers are the same in both." in page) == (equal == 2)
        assert (
            page.count("2 questions are not testable: base and tuned have the same concepts, nothing turned.") == 1
        )


def test_without_tables_nothing_is_shown(tables: dict[str, pd.DataFrame]) -> None:
    body = render_report(make_analysis({})).partition("<body>")[2].partition("<script>")[0]
    for word in ("concept", "weights", "h-variance", "h-rotation", "h-levels", "h-tasks", "h-pairs", "h-verbs"):
        assert word not in body
    # Models that cannot be compared: concepts of each, and nothing that compares.
    alone = {name: tables[name] for name in ("concepts", "explained_variance")}
    page = render_report(make_analysis(alone)).partition("<body>")[2].partition("<script>")[0]
    headings, without = (set(re.findall(r'<h2 id="h-(\w+)"', part)) for part in (page, body))
    assert headings - without == {"concepts", "variance"}
    assert "cannot be matched" in page
    assert embedded(page + "</script", "data-concepts")["layers"][0]["match"] is None
    empty = {name: table.iloc[:0] for name, table in tables.items()}
    assert "h-concepts" not in render_report(make_analysis(empty))


def test_hostile_words_are_escaped(hostile: Analysis) -> None:
    page = render_report(hostile)
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert "<img" not in outside
    assert "window.hacked=1</script" not in page
    for name, fig in weight_charts(hostile.tables).items():
        text = json.dumps(fig.to_dict(), ensure_ascii=False)
        assert "<img" not in text and "<script" not in text, name


def test_weights_in_a_browser(hostile: Analysis, tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    path = write_report(hostile, tmp_path / "report.html")
    rotation = hostile.tables["rotation"]
    concepts = hostile.tables["concepts"].set_index(["role", "layer", "component"])
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(path.as_uri())
        page.wait_for_selector("#figure-verb_shares .main-svg")

        rows = page.locator("#concept-rows tr")
        assert rows.count() == 20
        page.click("#concept-more")
        assert rows.count() == 30
        assert not page.locator("#concept-more").is_visible()

        # By keyboard alone: to the layer's control, down to layer 2, then to the order, most changed first.
        page.focus("#concept-layer")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        assert page.input_value("#concept-layer") == "2"
        turned = rotation[rotation["layer"] == 2].sort_values("cosine").iloc[0]
        cells = rows.first.locator("th, td")
        assert cells.nth(0).inner_text().split("\n")[0] == str(turned["component"])
        assert cells.nth(2).inner_text().startswith(f"{turned['cosine']:.3f}")
        for cell, mark, role, component, only in (
            (cells.nth(1), "del", "base", turned["component"], turned["left"]),
            (cells.nth(3), "ins", "tuned", turned["matched"], turned["entered"]),
        ):
            listed = concepts.loc[(role, 2, component), "words"]
            shown = cell.locator(".words > *")
            assert [shown.nth(i).text_content() for i in range(shown.count())] == listed
            marked = cell.locator(mark)
            assert [marked.nth(i).text_content() for i in range(marked.count())] == [
                w for w in listed if w in only
            ]

        # A word is found in this layer and told of the others; its button leads there.
        page.fill("#concept-find", "ONERROR")
        mine = {
            (layer, role, i)
            for (role, layer, i), row in concepts.iterrows()
            if HOSTILE[1] in row["words"] or HOSTILE[1] in str(row["description"])
        }
        match = {(r.layer, r.component): r.matched for r in rotation.itertuples()}
        found = [
            sum((layer, "base", i) in mine or (layer, "tuned", match[layer, i]) in mine for i in range(30))
            for layer in range(4)
        ]
        assert page.inner_text("#concept-status").startswith(f"{found[2]} of 30 concepts of layer 2")
        assert page.locator("#concept-rows .hit").first.text_content() == HOSTILE[1]
        page.click(f"#concept-elsewhere button:has-text('layer 3 ({found[3]})')")
        assert page.inner_text("#concept-status").startswith(f"{found[3]} of 30 concepts of layer 3")
        page.fill("#concept-find", "no such word")
        assert rows.count() == 0

        # The map of heads changes with its control, and tells the numbers of the cell under the pointer.
        drawn = "() => document.getElementById('figure-pairs').data[0].z"
        heads = weight_charts(hostile.tables)
        assert page.evaluate(drawn) == list(heads["pairs_instruction"].data[0].z)
        page.locator("#figure-pairs").scroll_into_view_if_needed()
        area = page.locator("#figure-pairs .nsewdrag").bounding_box()
        assert area is not None
        page.mouse.move(
            area["x"] + area["width"] * 2.5 / 4, area["y"] + area["height"] * 1.5 / 3
        )  # layer 2, head 1
        label = page.wait_for_selector("#figure-pairs .hovertext").text_content()
        assert label.startswith(
            f"layer 2, head 1: {heads['pairs_instruction'].data[0].z[1][2]:+d}".replace("-", "−")
        )
        verbs = hostile.tables["head_verbs"].query(
            "kind == 'instruction' and layer == 2 and head == 1 and gained + lost > 0"
        )
        assert len(verbs) > 0
        assert [verb for verb in verbs["verb"] if verb not in label] == [], label
        page.select_option("#pick-pairs", "pairs_any")
        assert page.evaluate(drawn) == list(heads["pairs_any"].data[0].z)

        # Colours follow light and dark.
        color = "() => document.getElementById('figure-rotation').data[2].line.color"
        assert page.evaluate(color) == "#d1693c"
        page.emulate_media(color_scheme="dark")
        page.wait_for_function(f"() => ({color})() === '#e58a5f'")
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0
        assert errors == []
        browser.close()


def test_charts_reach_wandb(
    tables: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    from lightning.pytorch.loggers import WandbLogger

    from shiftlens.report.log_analysis import log_analysis

    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(project="test", save_dir=str(tmp_path), settings=wandb.Settings(x_disable_stats=True))
    logged: dict = {}
    monkeypatch.setattr(logger.experiment, "log", lambda media, **_: logged.update(media))
    log_analysis(make_analysis(tables), [logger], None)
    wandb.finish()
    charts = {name for name in logged if name.startswith("charts/")}
    assert charts == {f"charts/{name}" for name in weight_charts(tables)} | {
        "charts/density_by_region",
        "charts/position_profile",
    }
    assert all(isinstance(logged[name], wandb.Plotly) for name in charts)
    table = logged["tables/concepts"]
    words = table.columns.index("words")
    assert [row[words] for row in table.data] == tables["concepts"]["words"].tolist()
