"""The report, the tables and the closing summary, on a run made up here."""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.made_up_run import HOSTILE, MadeUpRun, made_up_run
from helpers.pages import browser_page, embedded
from rich.console import Console

from shiftlens.analyses.density.figures import density_by_region, position_profile, saliency_heatmap
from shiftlens.models.roles import ROLES
from shiftlens.report.page import render_report, write_report
from shiftlens.report.terminal import print_summary
from shiftlens.report.write_tables import write_tables
from shiftlens.results.finding import Group
from shiftlens.results.render import script_json
from shiftlens.results.sentence import sentence
from shiftlens.support.whole_files import write_text


@pytest.fixture(scope="module")
def run() -> MadeUpRun:
    return made_up_run(prompts=6, n=12, m=8)


@pytest.fixture(scope="module")
def hostile() -> MadeUpRun:
    run = made_up_run(prompts=4, n=12, m=8, tokens=list(HOSTILE))
    models = {role: {"name": HOSTILE[i], "source": HOSTILE[i]} for i, role in enumerate(ROLES)}
    samples = run.samples.assign(id=HOSTILE[0] + run.samples["id"], dataset=HOSTILE[1])
    finding = replace(run.findings[1], why_not=HOSTILE[0], note=HOSTILE[0], name=HOSTILE[1], data=HOSTILE[1])
    profile = run.profile.assign(dataset=HOSTILE[1])
    return replace(
        run,
        samples=samples,
        findings=[finding],
        profile=profile,
        provenance={**run.provenance, "models": models},
    )


def test_figures_show_means_and_intervals_of_the_samples(run: MadeUpRun) -> None:
    fig = density_by_region(run.samples)
    values = [s["density_context"] for s in run.samples.to_dict("records") if s["role"] == "tuned"]
    mean = sum(values) / len(values)
    se = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    bar = next(trace for trace in fig.data if trace.name == "tuned")
    assert bar.x[1] == "context"
    assert bar.y[1] == pytest.approx(mean)
    assert bar.error_y.array[1] == pytest.approx(1.96 * se)
    assert bar.text[1] == f"n={len(values)}"

    lines = {t.name: t for t in position_profile(run.profile).data}
    row = run.profile.query("role == 'base' and bin == 3").iloc[0]
    at = lines["base"].x.index(35.0)
    assert lines["base"].y[at] == pytest.approx(row["mean"])
    assert lines["base interval"].y[at] == pytest.approx(row["mean"] + 1.96 * row["std"] / math.sqrt(row["n"]))


def test_figures_hold_lists_and_escaped_labels(hostile: MadeUpRun) -> None:
    figures = [
        density_by_region(hostile.samples),
        position_profile(hostile.profile),
        *map(saliency_heatmap, hostile.maps),
    ]
    for fig in figures:
        text = json.dumps(fig.to_dict())
        assert "bdata" not in text  # viewers with an older plotly.js draw base64 arrays as nothing
        assert "<img" not in text
        assert "<script" not in text
    heatmap = saliency_heatmap(hostile.maps[0])
    assert [html.unescape(t) for t in heatmap.layout.xaxis.ticktext] == list(hostile.maps[0].response_tokens)
    assert np.array_equal(heatmap.data[0].z, hostile.maps[0].score)


def test_sentences_claim_only_what_the_test_supports(run: MadeUpRun) -> None:
    shift, none = run.findings
    assert sentence(shift) == (
        "On verifiable, the instruction score is higher for tuned than for base: 1.19 vs 1.00, "
        "Hedges g 0.29 [0.10, 0.40], p = 3e-6, n = 252."
    )
    assert "no clear difference" in sentence(replace(shift, p=0.2))
    lower = replace(
        shift, p=0.999, ci=(-0.4, -0.1), groups={"base": Group(1.2, 0.5, 9), "tuned": Group(1.0, 0.5, 9)}
    )
    assert "not shown to be higher for tuned; the sample points the other way, to base: 1.20 vs 1.00" in sentence(
        lower
    )
    assert sentence(none).startswith(f"{none.question} Not testable on verifiable: 1 sample was not followed")


def test_tables_round_trip(run: MadeUpRun, tmp_path: Path) -> None:
    paths = write_tables(run.analysis, tmp_path)
    names = [str(p.relative_to(tmp_path)) for p in paths]
    assert names == [
        "findings.json",
        *(f"tables/{n}.parquet" for n in ("findings", "samples", "tokens", "profile", "sensitivity")),
    ]
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(paths)  # no temp file left

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    record = json.loads(paths[0].read_text(encoding="utf-8"), parse_constant=refuse)
    assert record["findings"][1]["statistic"] is None
    assert record["provenance"]["models"]["tuned"]["source"] == "org/tuned-1b"
    pd.testing.assert_frame_equal(pd.read_parquet(paths[2]), run.samples)
    pd.testing.assert_frame_equal(pd.read_parquet(paths[3]), run.tokens.assign(method="gradient"))
    findings = pd.read_parquet(paths[1])
    assert findings.loc[0, "ci_low"] == 0.1
    assert json.loads(findings.loc[0, "groups"])["tuned"]["n"] == 252
    assert math.isnan(findings.loc[1, "p"])


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_report_has_all_parts_in_order(run: MadeUpRun) -> None:
    page = render_report(run.analysis)
    body = page[page.index("<body>") :]
    marks = [
        "What changed between <em>base-1b</em> and <em>tuned-1b</em>", html.escape(sentence(run.findings[0])),
        "the mean difference over prompts is 0", 'data-map="0"', 'data-map="1"', 'id="data-density_by_region"', 'id="data-position_profile"',
        'class="samples"', "chatml",
    ]  # fmt: skip
    places = [body.index(mark) for mark in marks]
    assert places == sorted(places)
    assert page.count("plotly.js v") == 1
    data = embedded(page, "data-maps")
    first = data["maps"][1]
    score = np.frombuffer(base64.b64decode(first["score"]), np.uint8).reshape(12, 8)
    assert np.array_equal(score, run.maps[1].score)
    assert [data["regions"][r] for r in first["regions"]] == list(run.maps[1].regions)
    assert data["levels"] == 10
    shares = run.samples.groupby("role")["followed"].mean()
    assert f'class="v tuned">{shares["tuned"]:.0%}<' in page


def test_what_could_not_be_tested_stands_below_the_table_by_reason(run: MadeUpRun) -> None:
    tested, few = run.findings
    more = [replace(few, name=name, why_not=why) for name, why in (("x/1", few.why_not), ("x/2", "<why>"))]
    page = render_report(replace(run, findings=[few, tested, *more]).analysis)
    table = re.search(r'aria-label="Findings table">(.*?)</table>', page, re.S)
    below = re.search(r'<details class="untested">(.*?)</details>', page, re.S)
    assert table is not None and below is not None
    assert re.findall(r'<th scope="row".*?<code>(.*?)</code>', table[1]) == [tested.name]
    parts = [re.findall("<code>(.*?)</code>", part) for part in below[1].split('<p class="why">')]
    assert parts == [[], [few.name, "x/1"], ["x/2"]]
    assert "<summary>Not testable: 3 questions</summary>" in below[1]
    assert below[1].count("followed and unfollowed have the same mean") == 3
    assert "followed 1.30 ± – (1)" in below[1]
    assert "&lt;why&gt;</p>" in below[1]
    alone = render_report(replace(run, findings=[few]).analysis)
    assert "Findings table" not in alone
    assert '<details class="untested" open><summary>Not testable: 1 question</summary>' in alone


def test_report_escapes_untrusted_text(hostile: MadeUpRun) -> None:
    page = render_report(hostile.analysis)
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert "<img" not in outside
    assert "window.hacked=1</script" not in page
    assert embedded(page, "data-maps")["maps"][0]["rows"] == list(hostile.maps[0].prompt_tokens)
    assert "\u2028" not in script_json("\u2028")
    assert "&" not in script_json("&amp;")


def test_empty_response_is_said_plainly(run: MadeUpRun) -> None:
    empty = replace(
        run.maps[0],
        response_tokens=[],
        response="",
        score=np.zeros((12, 0), np.uint8),
        density=np.zeros(12),
    )
    page = render_report(replace(run, maps=[empty, *run.maps[1:]]).analysis)
    assert "The base model gave an empty response" in page
    assert 'data-map="0"' not in page
    assert saliency_heatmap(empty).layout.annotations[0].text.startswith("The response is empty")


def test_report_of_a_large_map_stays_small() -> None:
    run = made_up_run(prompts=1, n=500, m=300)
    page = render_report(run.analysis)
    assert len(page) < len(render_report(replace(run, maps=[]).analysis)) + 2 * (500 * 300 * 4 / 3 + 40_000)
    assert page.count("<") < 3000 + render_report(replace(run, maps=[]).analysis).count("<")


def test_report_in_a_browser(hostile: MadeUpRun, tmp_path: Path) -> None:
    path = write_report(hostile.analysis, tmp_path / "report.html")
    with browser_page(path) as (page, errors, requests):
        page.wait_for_selector("#figure-position_profile .main-svg")
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0
        assert errors == []
        assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
        assert page.locator("#figure-density_by_region .bars .point").count() == 6
        grid = page.locator(".prompt:visible .grid").first
        grid.scroll_into_view_if_needed()
        # The third prompt token under the second response token.
        grid.hover(position={"x": 104 + 46 + 22 + 8, "y": 84 + 2 * 16 + 8})
        tip = page.locator("#tip").inner_text()
        score = int(hostile.maps[0].score[2, 1])
        assert tip.endswith(f"S = {score} of 10")
        assert tip.startswith(hostile.maps[0].prompt_tokens[2].strip())
        page.select_option("#pick", "1")
        assert page.locator(".prompt:visible").count() == 1
        assert page.locator(".prompt:visible h3").inner_text() == "p1"
        # Dark and light differ, and the canvas is drawn in both.
        pixels = "() => document.querySelector('.prompt:not([hidden]) canvas').toDataURL()"
        light = page.evaluate(pixels)
        page.emulate_media(color_scheme="dark")
        page.wait_for_function(f"before => ({pixels})() !== before", arg=light)


def test_terminal_shows_findings_and_paths(run: MadeUpRun) -> None:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    long = Path("/" + "x" * 150) / "report.html"
    tricky = replace(run.findings[0], name="[red]density[/red]")
    print_summary(replace(run, findings=[tricky, run.findings[1]]).analysis, [long], console)
    text = console.export_text()
    assert "[red]density[/red]" in text.replace("\n", "")
    assert "3e-6" in text
    assert str(long) in text
    assert "not testable" not in text
    reason = "Not testable (1 sample was not followed, 2 are needed): density/followed_vs_unfollowed on verifiable"
    assert reason in text.replace("\n", " ")
