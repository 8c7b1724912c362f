"""Send an analysis to Lightning loggers: scalars to all, tables, charts and files to Weights & Biases."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from shiftlens.analyses.density.figures import density_by_region, position_profile, saliency_heatmap
from shiftlens.models.roles import ROLES
from shiftlens.report.weights import weight_charts
from shiftlens.report.write_tables import findings_frame
from shiftlens.results.analysis import Analysis
from shiftlens.support.whole_files import write_parquet

TABLE_ROWS = 10_000
"""Rows a W&B table keeps; it drops the rest without a word, so longer tables go as artifacts."""

_SCORES = {
    "instruction_score": "instruction_score",
    "density_instruction": "density_instruction",
    "density_context": "density_context",
    "density_other": "density_other",
    "followed": "follow_rate",
}


def scalars(analysis: Analysis) -> dict[str, float]:
    """The numbers of a run under stable names.

    Means per role are ``base/...`` and ``tuned/...``, their difference ``shift/...``; each finding gives
    ``findings/<name>/<data>/p`` and ``.../effect``. What is not known has no entry.

    Args:
        analysis: the run.

    Returns:
        Name -> value.

    Example:
        >>> none = pd.DataFrame()
        >>> samples = pd.DataFrame({"role": ["base", "tuned"], "instruction_score": [1.0, 1.5]})
        >>> scalars(Analysis([], samples, none, none, [], {}))["shift/instruction_score"]
        0.5
    """
    values: dict[str, float] = {}
    samples = analysis.samples
    for column, name in _SCORES.items():
        if column not in samples:
            continue
        for role in ROLES:
            known = samples.loc[samples["role"] == role, column].dropna()
            if len(known):
                values[f"{role}/{name}"] = float(known.astype(float).mean())
        if all(f"{role}/{name}" in values for role in ROLES):
            values[f"shift/{name}"] = values[f"tuned/{name}"] - values[f"base/{name}"]
    for finding in analysis.findings:
        record = finding.to_dict()
        for key in ("p", "effect"):
            if record[key] is not None:
                values[f"findings/{finding.name}/{finding.data}/{key}"] = float(record[key])
    return values


@rank_zero_only
def log_analysis(analysis: Analysis, loggers: Sequence[Logger], report_path: Path | str | None) -> None:
    """Log ``analysis`` once, as one step, to every logger.

    Every logger gets :func:`scalars`. A :class:`WandbLogger` gets besides: the provenance in its config,
    the scalars in its summary, tables, charts, one heatmap per saliency map, and the report as an artifact.

    Args:
        analysis: the run.
        loggers: Lightning loggers, perhaps none.
        report_path: the HTML report, ``None`` if none was written.
    """
    values = scalars(analysis)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _log_media(analysis, logger, report_path)
        logger.log_metrics(values)
        logger.save()
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update(values)


def _log_media(analysis: Analysis, logger: WandbLogger, report_path: Path | str | None) -> None:
    import wandb

    run: Any = logger.experiment
    run.config.update({"provenance": _plain(analysis.provenance)}, allow_val_change=True)
    media: dict[str, Any] = {}
    frames = {
        "findings": findings_frame(analysis.findings),
        "samples": analysis.samples,
        "tokens": analysis.tokens,
        "profile": analysis.profile,
        **analysis.tables,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, frame in frames.items():
            if len(frame) <= TABLE_ROWS:
                media[f"tables/{name}"] = wandb.Table(columns=list(frame.columns), data=table_cells(frame))
            else:
                artifact = wandb.Artifact(f"{name}-{run.id}", type="table")
                artifact.add_file(str(write_parquet(Path(folder) / f"{name}.parquet", frame)))
                run.log_artifact(artifact)
        if report_path is not None:
            artifact = wandb.Artifact(f"report-{run.id}", type="report")
            artifact.add_file(str(report_path), name="report.html")
            run.log_artifact(artifact)
    media["charts/density_by_region"] = wandb.Plotly(density_by_region(analysis))
    media["charts/position_profile"] = wandb.Plotly(position_profile(analysis))
    for name, figure in weight_charts(analysis.tables).items():
        media[f"charts/{name}"] = wandb.Plotly(figure)
    # Heatmaps, not wandb.Html: that sanitises nothing, and tokens are untrusted text. Numbered by prompt,
    # as ids may hold characters that a media key cannot.
    numbers: dict[str, int] = {}
    for saliency in analysis.maps:
        number = numbers.setdefault(saliency.prompt_id, len(numbers))
        media[f"maps/{number}/{saliency.role}"] = wandb.Plotly(saliency_heatmap(saliency))
    # Held back: log_metrics commits these together with the scalars as one step.
    run.log(media, commit=False)


def table_cells(frame: pd.DataFrame) -> list[list[Any]]:
    """Rows of a table as plain values, ``None`` for what is not known."""
    columns = frame.astype(object).where(frame.notna(), None)
    return [list(row) for row in columns.itertuples(index=False, name=None)]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
