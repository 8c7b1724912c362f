"""The report, the tables and what loggers receive, on an analysis made up here."""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from rich.console import Console

from shiftlens.analyses.density.figures import density_by_region, position_profile, saliency_heatmap
from shiftlens.models.roles import ROLES
from shiftlens.report.log_analysis import log_analysis, scalars
from shiftlens.report.page import render_report, script_json, write_report
from shiftlens.report.terminal import print_summary
from shiftlens.report.write_tables import write_tables
from shiftlens.results.analysis import REGIONS, Analysis, SaliencyMap
from shiftlens.results.finding import Finding, Group
from shiftlens.results.sentence import sentence
from shiftlens.support.whole_files import write_text

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = (
    "</script><script>window.hacked=1</script>",
    '<img src=x onerror="window.hacked=1">',
    "]]><!--<script>",
    "\u2028\u2029",
    "naïve 日本 \U0001f600",
    "<b>bold</b>",
    "a & b",
)


def make_analysis(prompts: int = 24, n: int = 40, m: int = 25, tokens: list[str] | None = None) -> Analysis:
    """A run of realistic shape: the tuned model is heavier on the instruction, both ends are heavy."""
    rng = np.random.default_rng(0)
    words = tokens or [
        "Write",
        " a",
        " short",
        " poem",
        " about",
        " the",
        " sea",
        ".",
        " Use",
        " only",
        " capitals",
    ]
    samples, rows, maps = [], [], []
    for i in range(prompts):
        x = [words[k % len(words)] for k in range(n)]
        y = [words[(k * 3 + i) % len(words)] for k in range(m)]
        regions = ["instruction" if k < n // 3 else "context" if k < 2 * n // 3 else "other" for k in range(n)]
        for role in ROLES:
            boost = np.array([1.3 if role == "tuned" and r == "instruction" else 1.0 for r in regions])
            u_shape = 0.4 + 2.4 * (np.arange(n) / n - 0.5) ** 2
            density = np.clip(rng.gamma(2.0, 0.3, n) * boost * u_shape, 0, None)
            density /= density.max()
            score = np.floor(11 * rng.random((n, m)) ** 4 * (0.5 + density[:, None]) / 1.5).astype(np.uint8)
            value = float(density[: n // 3].sum() / math.log2(2 + n // 3))
            means = {r: float(density[[q == r for q in regions]].mean()) for r in REGIONS[:3]}
            followed = bool(rng.random() < (0.7 if role == "tuned" else 0.3))
            samples.append(
                {"role": role, "id": f"p{i}", "dataset": "verifiable", "instruction_score": value, "followed": followed,
                 "rating": None, "n_prompt": n, "n_instruction": n // 3, "n_context": n // 3, "n_response": m,
                 **{f"density_{r}": v for r, v in means.items()}, "finished": True, "prompt": "".join(x),
                 "response": "".join(y)}
            )  # fmt: skip
            for k in range(n):
                rows.append({"role": role, "id": f"p{i}", "position": k, "token": x[k], "region": regions[k], "density": density[k]})  # fmt: skip
            if i < 3:
                maps.append(SaliencyMap(f"p{i}", role, x, y, regions, score, density, value, "".join(y), followed if i else None))  # fmt: skip
    frame, token_frame = pd.DataFrame(samples), pd.DataFrame(rows)
    frame["followed"] = frame["followed"].astype("boolean")
    frame["rating"] = frame["rating"].astype("Int64")
    bins = token_frame.assign(bin=token_frame["position"] * 10 // n, dataset="verifiable")
    profile = bins.groupby(["role", "dataset", "bin"])["density"].agg(["mean", "std", "count"]).reset_index()
    groups = {"base": Group(1.0043, 0.4965, 252), "tuned": Group(1.1939, 0.5358, 252)}
    shift = Finding(
        "density/base_vs_tuned", "density", "verifiable", "both", "Does tuning raise the instruction score?",
        "the mean difference over prompts is 0", "paired t-test, two-sided", 252, groups, 0.29, "Hedges g", (0.1, 0.4),
        3.2e-6, 4.7, {"Welch": 2.28e-5}, "",
    )  # fmt: skip
    none = replace(
        shift, name="density/followed_vs_unfollowed", role="tuned", groups={"followed": Group(1.3, float("nan"), 1)}, n=1,
        question="Do followed responses lean more on the instruction?", null="followed and unfollowed have the same mean",
        effect=None, ci=None, p=None, statistic=float("nan"), p_others={}, note="not testable: 1 sample was not followed, 2 are needed",
    )  # fmt: skip
    model = {"fingerprint": "0f3a", "dtype": "float32", "template": "chatml"}
    provenance = {
        "created": "2025-01-01T00:00:00Z", "shiftlens": "0.1.0", "git": "abc", "python": "3.11", "torch": "2", "transformers": "5",
        "models": {"base": {"source": "org/base-1b", **model}, "tuned": {"source": "org/tuned-1b", **model}},
        "data": {"name": "verifiable", "n": prompts, "skipped": 0}, "settings": {"L": 10, "b": 7, "p": 4},
    }  # fmt: skip
    return Analysis([shift, none], frame, token_frame, profile.rename(columns={"count": "n"}), maps, provenance)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return make_analysis(prompts=6, n=12, m=8)


@pytest.fixture(scope="module")
def hostile() -> Analysis:
    run = make_analysis(prompts=4, n=12, m=8, tokens=list(HOSTILE))
    models = {role: {"source": HOSTILE[i]} for i, role in enumerate(ROLES)}
    samples = run.samples.assign(id=HOSTILE[0] + run.samples["id"], dataset=HOSTILE[1])
    finding = replace(run.findings[1], note=HOSTILE[0], name=HOSTILE[1], data=HOSTILE[1])
    profile = run.profile.assign(dataset=HOSTILE[1])
    return replace(
        run,
        samples=samples,
        findings=[finding],
        profile=profile,
        provenance={**run.provenance, "models": models},
    )


def embedded(page: str, name: str) -> dict:
    """JSON of a script block, cut out as an HTML parser does: up to the first closing tag."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script', page, re.S | re.I)
    assert found is not None
    return json.loads(found.group(1))


def test_figures_show_means_and_intervals_of_the_samples(analysis: Analysis) -> None:
    fig = density_by_region(analysis)
    values = [s["density_context"] for s in analysis.samples.to_dict("records") if s["role"] == "tuned"]
    mean = sum(values) / len(values)
    se = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    bar = next(trace for trace in fig.data if trace.name == "tuned")
    assert bar.x[1] == "context"
    assert bar.y[1] == pytest.approx(mean)
    assert bar.error_y.array[1] == pytest.approx(1.96 * se)
    assert bar.text[1] == f"n={len(values)}"

    lines = {t.name: t for t in position_profile(analysis).data}
    row = analysis.profile.query("role == 'base' and bin == 3").iloc[0]
    at = lines["base"].x.index(35.0)
    assert lines["base"].y[at] == pytest.approx(row["mean"])
    assert lines["base interval"].y[at] == pytest.approx(row["mean"] + 1.96 * row["std"] / math.sqrt(row["n"]))


def test_figures_hold_lists_and_escaped_labels(hostile: Analysis) -> None:
    figures = [density_by_region(hostile), position_profile(hostile), *map(saliency_heatmap, hostile.maps)]
    for fig in figures:
        text = json.dumps(fig.to_dict())
        assert "bdata" not in text  # viewers with an older plotly.js draw base64 arrays as nothing
        assert "<img" not in text
        assert "<script" not in text
    heatmap = saliency_heatmap(hostile.maps[0])
    assert [html.unescape(t) for t in heatmap.layout.xaxis.ticktext] == list(hostile.maps[0].response_tokens)
    assert np.array_equal(heatmap.data[0].z, hostile.maps[0].score)


def test_sentences_claim_only_what_the_test_supports(analysis: Analysis) -> None:
    shift, none = analysis.findings
    assert sentence(shift) == (
        "On verifiable, the instruction score is higher for tuned than for base: 1.19 vs 1.00, "
        "Hedges g 0.29 [0.10, 0.40], p = 3e-6, n = 252."
    )
    assert "no clear difference" in sentence(replace(shift, p=0.2))
    lower = replace(
        shift, p=0.999, ci=(-0.4, -0.1), groups={"base": Group(1.2, 0.5, 9), "tuned": Group(1.0, 0.5, 9)}
    )
    assert "higher for base, opposite to the direction tested: 1.20 vs 1.00" in sentence(lower)
    assert sentence(none).startswith(f"{none.question} Not testable on verifiable: 1 sample was not followed")


def test_tables_round_trip(analysis: Analysis, tmp_path: Path) -> None:
    paths = write_tables(analysis, tmp_path)
    names = [str(p.relative_to(tmp_path)) for p in paths]
    assert names == [
        "findings.json",
        *(f"tables/{n}.parquet" for n in ("samples", "tokens", "profile", "findings")),
    ]
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(paths)  # no temp file left

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    record = json.loads(paths[0].read_text(encoding="utf-8"), parse_constant=refuse)
    assert record["findings"][1]["statistic"] is None
    assert record["provenance"]["models"]["tuned"]["source"] == "org/tuned-1b"
    pd.testing.assert_frame_equal(pd.read_parquet(paths[1]), analysis.samples)
    pd.testing.assert_frame_equal(pd.read_parquet(paths[2]), analysis.tokens)
    findings = pd.read_parquet(paths[4])
    assert findings.loc[0, "ci_low"] == 0.1
    assert json.loads(findings.loc[0, "groups"])["tuned"]["n"] == 252
    assert math.isnan(findings.loc[1, "p"])


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_report_has_all_parts_in_order(analysis: Analysis) -> None:
    page = render_report(analysis)
    body = page[page.index("<body>") :]
    marks = [
        "What changed between <em>org/base-1b</em> and <em>org/tuned-1b</em>", html.escape(sentence(analysis.findings[0])),
        "the mean difference over prompts is 0", 'data-map="0"', 'data-map="1"', 'id="figure-density"', 'id="figure-profile"',
        'class="samples"', "chatml",
    ]  # fmt: skip
    places = [body.index(mark) for mark in marks]
    assert places == sorted(places)
    assert page.count("plotly.js v") == 1
    data = embedded(page, "data-maps")
    first = data["maps"][1]
    score = np.frombuffer(base64.b64decode(first["score"]), np.uint8).reshape(12, 8)
    assert np.array_equal(score, analysis.maps[1].score)
    assert [data["regions"][r] for r in first["regions"]] == list(analysis.maps[1].regions)
    assert data["levels"] == 10
    shares = analysis.samples.groupby("role")["followed"].mean()
    assert f'class="v tuned">{shares["tuned"]:.0%}<' in page


def test_what_could_not_be_tested_stands_below_the_table_by_reason(analysis: Analysis) -> None:
    tested, few = analysis.findings
    more = [
        replace(few, name=name, note=note) for name, note in (("x/1", few.note), ("x/2", "not testable: <why>"))
    ]
    page = render_report(replace(analysis, findings=[few, tested, *more]))
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
    alone = render_report(replace(analysis, findings=[few]))
    assert "Findings table" not in alone
    assert '<details class="untested" open><summary>Not testable: 1 question</summary>' in alone


def test_report_escapes_untrusted_text(hostile: Analysis) -> None:
    page = render_report(hostile)
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert "<img" not in outside
    assert "window.hacked=1</script" not in page
    assert embedded(page, "data-maps")["maps"][0]["rows"] == list(hostile.maps[0].prompt_tokens)
    assert "\u2028" not in script_json("\u2028")
    assert "&" not in script_json("&amp;")


def test_empty_response_is_said_plainly(analysis: Analysis) -> None:
    empty = replace(
        analysis.maps[0],
        response_tokens=[],
        response="",
        score=np.zeros((12, 0), np.uint8),
        density=np.zeros(12),
    )
    page = render_report(replace(analysis, maps=[empty, *analysis.maps[1:]]))
    assert "The base model gave an empty response" in page
    assert 'data-map="0"' not in page
    assert saliency_heatmap(empty).layout.annotations[0].text.startswith("The response is empty")


def test_report_of_a_large_map_stays_small() -> None:
    run = make_analysis(prompts=1, n=500, m=300)
    page = render_report(run)
    assert len(page) < len(render_report(replace(run, maps=[]))) + 2 * (500 * 300 * 4 / 3 + 40_000)
    assert page.count("<") < 3000 + render_report(replace(run, maps=[])).count("<")


def test_report_in_a_browser(hostile: Analysis, tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    path = write_report(hostile, tmp_path / "report.html")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        errors: list[str] = []
        requests: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#figure-profile .main-svg")
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0
        assert errors == []
        assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
        assert page.locator("#figure-density .bars .point").count() == 6
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
        browser.close()


def test_terminal_shows_findings_and_paths(analysis: Analysis) -> None:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    long = Path("/" + "x" * 150) / "report.html"
    tricky = replace(analysis.findings[0], name="[red]density[/red]")
    print_summary(replace(analysis, findings=[tricky, analysis.findings[1]]), [long], console)
    text = console.export_text()
    assert "[red]density[/red]" in text.replace("\n", "")
    assert "3e-6" in text
    assert str(long) in text
    assert "not testable" not in text
    reason = "Not testable (1 sample was not followed, 2 are needed): density/followed_vs_unfollowed on verifiable"
    assert reason in text.replace("\n", " ")


def test_scalars_have_stable_names(analysis: Analysis) -> None:
    values = scalars(analysis)
    table = analysis.samples.set_index("role")
    means = {role: sum(table.loc[role, "instruction_score"]) / 6 for role in ROLES}
    assert values["base/instruction_score"] == pytest.approx(means["base"])
    assert values["shift/instruction_score"] == pytest.approx(means["tuned"] - means["base"])
    assert values["tuned/follow_rate"] == pytest.approx(sum(table.loc["tuned", "followed"]) / 6)
    assert values["findings/density/base_vs_tuned/verifiable/p"] == 3.2e-6
    assert "findings/density/followed_vs_unfollowed/verifiable/p" not in values
    unknown = analysis.samples.assign(followed=pd.array([pd.NA] * len(analysis.samples), dtype="boolean"))
    assert not any("follow_rate" in name for name in scalars(replace(analysis, samples=unknown)))


def test_csv_logger_receives_one_row(analysis: Analysis, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    log_analysis(analysis, [logger], None)
    rows = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    assert len(rows) == 1
    assert rows.loc[0, "shift/instruction_score"] == pytest.approx(scalars(analysis)["shift/instruction_score"])


def test_offline_wandb_run_reads_back(analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    report = tmp_path / "report.html"
    report.write_text("<!doctype html>")
    big = pd.concat([analysis.tokens] * 100, ignore_index=True).head(10_001)
    assert len(big) == 10_001
    edge = pd.DataFrame({"row": range(10_000)})
    logger = WandbLogger(project="test", save_dir=str(tmp_path), settings=wandb.Settings(x_disable_stats=True))
    log_analysis(replace(analysis, tokens=big, tables={"edge": edge}), [logger], report)
    run_dir = Path(logger.experiment.dir).parent
    wandb.finish()

    def inspect(*options: str) -> str:
        tool = Path(sys.executable).with_name("wandb")
        command = [tool, "leet", "inspect", *options, "--json", run_dir]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    run = json.loads(inspect("--summary"))
    assert run["config"]["provenance"]["models"]["tuned"]["source"] == "org/tuned-1b"
    summary = run["summary"]
    for name, value in scalars(analysis).items():
        assert summary[name] == pytest.approx(value), name
    for name in ("findings", "samples", "profile"):
        assert summary[f"tables/{name}"]["_type"] == "table-file"
    assert summary["tables/samples"]["nrows"] == len(analysis.samples)
    # The longest table that is kept whole; one row more, and it is an artifact.
    assert summary["tables/edge"]["nrows"] == 10_000
    kept = json.loads((run_dir / "files" / summary["tables/edge"]["path"]).read_text())
    assert kept["data"] == [[row] for row in range(10_000)]
    assert "tables/tokens" not in summary
    for name in ("charts/density_by_region", "charts/position_profile", "maps/0/base", "maps/2/tuned"):
        assert summary[name]["_type"] == "plotly-file"
    records = [json.loads(line) for line in inspect().splitlines()]
    assert len([record for record in records if record["type"] == "history"]) == 1
    artifacts = [record["artifact"] for record in records if record["type"] == "artifact"]
    files = {file["path"]: (a["type"], file) for a in artifacts for file in a["manifest"]["contents"]}
    assert files["report.html"][0] == "report"
    kind, file = files["tokens.parquet"]
    assert kind == "table"
    pd.testing.assert_frame_equal(pd.read_parquet(file["local_path"]), big)
