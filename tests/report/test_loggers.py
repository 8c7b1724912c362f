"""What loggers receive, read back: of a run made up here, and of one with every analysis of responses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.in_process import analyze
from helpers.made_up_run import MadeUpRun, made_up_run
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from shiftlens.models.roles import ROLES
from shiftlens.report.log_analysis import log_analysis, scalars
from shiftlens.report.make_sinks import sink_of
from shiftlens.report.wandb_sink import WandbSink
from shiftlens.results.analysis import Analysis
from shiftlens.results.section import Section


@pytest.fixture(scope="module")
def run() -> MadeUpRun:
    return made_up_run(prompts=6, n=12, m=8)


@pytest.fixture(scope="module")
def every_analysis(pair, tmp_path_factory) -> Analysis:
    """Both models on both responses, token shift and faithfulness, beside the importance scores."""
    folder = tmp_path_factory.mktemp("every")
    return analyze(folder, pair, "data.responses=both", "callbacks=evidence")[0]


def inspected(run_dir: Path, *options: str) -> str:
    """An offline run as the wandb tool reads it."""
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", *options, "--json", run_dir]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def summary_of(analysis: Analysis, folder: Path, report: Path | None = None) -> tuple[dict[str, Any], Path]:
    """What an offline W&B run says of itself after an analysis was logged, and its folder."""
    wandb = pytest.importorskip("wandb")
    logger = WandbLogger(project="test", save_dir=str(folder), settings=wandb.Settings(x_disable_stats=True))
    log_analysis(analysis, [WandbSink(logger)], report)
    run_dir = Path(logger.experiment.dir).parent
    wandb.finish()
    return json.loads(inspected(run_dir, "--summary")), run_dir


def test_scalars_have_stable_names(run: MadeUpRun) -> None:
    values = scalars(run.analysis)
    table = run.samples.set_index("role")
    means = {role: sum(table.loc[role, "instruction_score"]) / 6 for role in ROLES}
    assert values["base/instruction_score"] == pytest.approx(means["base"])
    assert values["shift/instruction_score"] == pytest.approx(means["tuned"] - means["base"])
    assert values["tuned/follow_rate"] == pytest.approx(sum(table.loc["tuned", "followed"]) / 6)
    assert values["findings/density/base_vs_tuned/verifiable/p"] == 3.2e-6
    assert "findings/density/followed_vs_unfollowed/verifiable/p" not in values
    unknown = run.samples.assign(followed=pd.array([pd.NA] * len(run.samples), dtype="boolean"))
    assert not any("follow_rate" in name for name in scalars(replace(run, samples=unknown).analysis))


def test_csv_logger_receives_one_row(run: MadeUpRun, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    log_analysis(run.analysis, [sink_of("csv", logger)], None)
    rows = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    assert len(rows) == 1
    assert rows.loc[0, "shift/instruction_score"] == pytest.approx(
        scalars(run.analysis)["shift/instruction_score"]
    )


def test_offline_wandb_run_reads_back(run: MadeUpRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    report = tmp_path / "report.html"
    report.write_text("<!doctype html>")
    big = pd.concat([run.tokens] * 100, ignore_index=True).head(10_001)
    assert len(big) == 10_001
    edge = pd.DataFrame({"row": range(10_000)})
    analysis = replace(run, tokens=big, further=[Section(tables={"edge": edge})]).analysis
    back, run_dir = summary_of(analysis, tmp_path, report)
    assert back["config"]["provenance"]["models"]["tuned"]["source"] == "org/tuned-1b"
    summary = back["summary"]
    for name, value in scalars(run.analysis).items():
        assert summary[name] == pytest.approx(value), name
    for name in ("findings", "samples", "profile"):
        assert summary[f"tables/{name}"]["_type"] == "table-file"
    assert summary["tables/samples"]["nrows"] == len(run.samples)
    # The longest table that is kept whole; one row more, and it is an artifact.
    assert summary["tables/edge"]["nrows"] == 10_000
    kept = json.loads((run_dir / "files" / summary["tables/edge"]["path"]).read_text())
    assert kept["data"] == [[row] for row in range(10_000)]
    assert "tables/tokens" not in summary
    assert summary["findings/density/base_vs_tuned/verifiable/stands"] == 1
    assert summary["findings/density/base_vs_tuned/verifiable/verdict"] == "supported"
    for name in (
        "charts/density_by_region",
        "charts/position_profile",
        "charts/sensitivity",
        "maps/0/base",
        "maps/2/tuned",
    ):
        assert summary[name]["_type"] == "plotly-file"
    records = [json.loads(line) for line in inspected(run_dir).splitlines()]
    assert len([record for record in records if record["type"] == "history"]) == 1
    artifacts = [record["artifact"] for record in records if record["type"] == "artifact"]
    files = {file["path"]: (a["type"], file) for a in artifacts for file in a["manifest"]["contents"]}
    assert files["report.html"][0] == "report"
    kind, file = files["tokens.parquet"]
    assert kind == "table"
    pd.testing.assert_frame_equal(pd.read_parquet(file["local_path"]), big.assign(method="gradient"))


def check_findings(analysis: Analysis, logged: dict[str, Any]) -> None:
    """Every finding's numbers, each where it is known."""
    assert {f.name.partition("/")[0] for f in analysis.findings} >= {"density", "tokens", "faithfulness"}
    for finding in analysis.findings:
        start = f"findings/{finding.name}/{finding.data}"
        for key in ("p", "p_corrected", "effect"):
            known = getattr(finding, key)
            if known is None:
                assert f"{start}/{key}" not in logged
            else:
                assert logged[f"{start}/{key}"] == pytest.approx(known), (start, key)
        assert logged.get(f"{start}/stands") == (float(finding.stands) if finding.testable else None), start
    assert any(f.p_corrected is not None for f in analysis.findings)
    for name in ("density/model_effect", "tokens/first_vs_second_half", "faithfulness/zero_base_vs_tuned"):
        assert any(f"findings/{name}/" in key and key.endswith("/stands") for key in logged), name


def test_wandb_gets_the_charts_and_verdicts_of_every_analysis(
    every_analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    back, _ = summary_of(every_analysis, tmp_path)
    summary = back["summary"]
    for name in ("sensitivity", "crossed", "token_shift", "faithfulness", "density_by_region", "position_profile"):
        assert summary[f"charts/{name}"]["_type"] == "plotly-file", name
    for name in ("findings", "crossed", "token_shift", "token_shift_profile", "faithfulness", "sensitivity"):
        assert summary[f"tables/{name}"]["_type"] == "table-file", name
    check_findings(every_analysis, summary)
    for finding in every_analysis.findings:
        assert summary[f"findings/{finding.name}/{finding.data}/verdict"] == finding.verdict != ""


def test_tensorboard_gets_scalars_and_verdicts(every_analysis: Analysis, tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path, name="board")
    sink = sink_of("tensorboard", logger)
    log_analysis(every_analysis, [sink])
    sink.finish()
    events = event_accumulator.EventAccumulator(logger.log_dir, size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    logged = {tag: events.Scalars(tag)[-1].value for tag in tags["scalars"]}
    assert logged["shift/instruction_score"] == pytest.approx(
        scalars(every_analysis)["shift/instruction_score"], rel=1e-5
    )
    check_findings(every_analysis, logged)
    texts = {
        tag.removesuffix("/text_summary"): events.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
        for tag in tags["tensors"]
    }
    assert texts == {f"findings/{f.name}/{f.data}/verdict": f.verdict for f in every_analysis.findings}
