"""What a measured tuning leaves: logged curves, a page that draws, and findings."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers.pages import browser_page
from helpers.shift_run import RECORDS, callback, tune, values_at

from shiftlens.analyses.training.section import training_analysis
from shiftlens.report.page import render_report

pytestmark = pytest.mark.usefixtures("small_grid")


def test_loggers_get_the_curves(shift_run):
    rows = pd.read_csv(Path(shift_run.csv.log_dir) / "metrics.csv")
    names = {"instruction_score", "fixed_density_instruction", "follow_rate", "profile/3", "rotation_angle/1"}
    for step in (0, 2, 4):
        logged = rows[rows["step"] == step].ffill().bfill().iloc[0]
        for name in names:
            assert logged[f"during/{name}"] == pytest.approx(values_at(shift_run, step)[name]), (step, name)
    tool = Path(sys.executable).with_name("wandb")
    command = [tool, "leet", "inspect", "--json", shift_run.wandb]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    history = [entry for entry in map(json.loads, text.splitlines()) if entry["type"] == "history"]
    assert run_values(history, "during/instruction_score") == {
        step: pytest.approx(values_at(shift_run, step)["instruction_score"]) for step in (0, 2, 4)
    }
    assert run_values(history, "held_out/follow_rate/after") == {
        4: pytest.approx(shift_run.shift.record()["follow_rate"]["after"])
    }
    for part in ("charts/scores", "tables/curves", "report.html"):
        assert part in text


def run_values(history, name: str) -> dict[int, float]:
    found = {}
    for entry in history:
        items = entry["history"]["item"]
        if name in items:
            found[int(items["trainer/global_step"])] = items[name]
    return found


def test_the_report_holds_its_numbers_and_no_foreign_markup(shift_run):
    page = (shift_run.folder / "report.html").read_text(encoding="utf-8")
    outside = re.sub(r"<script[ >].*?</script>", "", page, flags=re.S)
    assert "<img" not in outside and html.escape(RECORDS[3]["text"]) in outside
    assert "default-src 'none'" in page and 'http-equiv="Content-Security-Policy"' in page
    change = shift_run.shift.record()["follow_rate"]
    assert (
        f">{100 * change['before']:.0f}%</span>" in outside and f">{100 * change['after']:.0f}%</span>" in outside
    )
    for name in ("loss", "follow", "scores", "density", "during_profile", "during_rotation", "during_pairs"):
        assert f'id="data-{name}"' in page, name
    for finding in shift_run.shift.looks.result().findings:
        assert finding.name in outside
    assert "model.tuned=" in outside and "analyze.py" in outside
    record = json.loads((shift_run.folder / "findings.json").read_text())
    assert record["follow_rate"]["p"] == change["p"]
    sections = training_analysis(shift_run.shift.looks.result(), "next").sections
    charts = {name: figure for section in sections for name, figure in section.figures.items()}
    line = next(trace for trace in charts["scores"].data if trace.name == "its own responses")
    assert list(line.x) == [0, 2, 4]
    assert list(line.y) == [pytest.approx(values_at(shift_run, step)["instruction_score"]) for step in (0, 2, 4)]
    assert "bdata" not in json.dumps([figure.to_dict() for figure in charts.values()])
    assert "shift at step 2; followed" in shift_run.told and "held-out prompts followed:" in shift_run.told


def test_the_report_draws_in_a_browser(shift_run):
    with browser_page(shift_run.folder / "report.html") as (page, errors, _):
        page.wait_for_selector("#figure-during_pairs .main-svg")
        assert errors == []
        assert page.locator(".figure .main-svg").count() >= 7


def test_a_run_without_checks_or_weights_has_what_is_left(pair, held_out, tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_text(json.dumps({"id": "a", "text": "Write it", "instruction": [[0, 8]]}))
    shift = callback(tmp_path, {**held_out, "path": str(path)}, None, rotation="off", pairs="off", density="off")
    tune(pair, tmp_path, [shift])
    assert shift.record()["follow_rate"] is None and shift.record()["findings"] == []
    page = render_report(training_analysis(shift.looks.result(), "next", 2))
    assert "No findings were computed in this run." in page
