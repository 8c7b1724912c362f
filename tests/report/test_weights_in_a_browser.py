"""Concepts and word pairs in a browser: by keyboard, with hostile words, in light and dark."""

from __future__ import annotations

from pathlib import Path

from helpers.pages import browser_page
from helpers.weight_tables import HOSTILE, make_analysis, make_tables, weight_charts

from shiftlens.report.page import write_report


def test_weights_in_a_browser(tmp_path: Path) -> None:
    tables = make_tables(words=HOSTILE * 3)
    hostile = make_analysis({**tables, "concepts": tables["concepts"].assign(note=HOSTILE[1])})
    path = write_report(hostile, tmp_path / "report.html")
    rotation = hostile.tables["rotation"]
    concepts = hostile.tables["concepts"].set_index(["role", "layer", "component"])
    with browser_page(path) as (page, errors, _):
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

        # One map of heads at a time, that of the control; it tells the numbers of the cell under the pointer.
        heads = weight_charts(hostile.tables)
        kinds = ("instruction", "general", "any")

        def visible_maps() -> list[str]:
            return [kind for kind in kinds if page.locator(f"#figure-pairs_{kind}").is_visible()]

        for kind in kinds:
            drawn = page.evaluate(f"() => document.getElementById('figure-pairs_{kind}').data[0].z")
            assert drawn == list(heads[f"pairs_{kind}"].data[0].z)
        assert visible_maps() == ["instruction"]
        page.locator("#figure-pairs_instruction").scroll_into_view_if_needed()
        area = page.locator("#figure-pairs_instruction .nsewdrag").bounding_box()
        assert area is not None
        page.mouse.move(
            area["x"] + area["width"] * 2.5 / 4, area["y"] + area["height"] * 1.5 / 3
        )  # layer 2, head 1
        label = page.wait_for_selector("#figure-pairs_instruction .hovertext").text_content()
        assert label.startswith(
            f"layer 2, head 1: {heads['pairs_instruction'].data[0].z[1][2]:+d}".replace("-", "−")
        )
        verbs = hostile.tables["head_verbs"].query(
            "kind == 'instruction' and layer == 2 and head == 1 and gained + lost > 0"
        )
        assert len(verbs) > 0
        assert [verb for verb in verbs["verb"] if verb not in label] == [], label
        width = area["width"]
        page.select_option("#pick-pairs", "pairs_any")
        assert visible_maps() == ["any"]
        area = page.locator("#figure-pairs_any .nsewdrag").bounding_box()
        assert area is not None and abs(area["width"] - width) < 2  # as wide as the one that was drawn visibly

        # Colours follow light and dark.
        color = "() => document.getElementById('figure-rotation').data[2].line.color"
        assert page.evaluate(color) == "#d1693c"
        page.emulate_media(color_scheme="dark")
        page.wait_for_function(f"() => ({color})() === '#e58a5f'")
        assert visible_maps() == ["any"]
        page.select_option("#pick-pairs", "pairs_instruction")
        assert visible_maps() == ["instruction"]
        area = page.locator("#figure-pairs_instruction .nsewdrag").bounding_box()
        assert area is not None and abs(area["width"] - width) < 2
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0
        assert errors == []
