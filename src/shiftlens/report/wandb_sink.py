"""Weights & Biases: scalars, verdicts, tables, figures and files; goes offline by itself where it must."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import Logger, WandbLogger

from shiftlens.report.sink import Entry, Sink
from shiftlens.support.whole_files import write_parquet

log = logging.getLogger(__name__)

TABLE_ROWS = 10_000
"""Rows a W&B table keeps; it drops the rest without a word, so longer tables go as artifacts."""


class WandbSink(Sink):
    """A W&B run.

    Args:
        logger: A logger that was made already; ``None`` makes one from ``settings`` when the sink starts.
        mode: ``online``, ``offline`` or ``disabled``; ``None`` is online where a key is configured, else offline.
        **settings: Arguments of Lightning's ``WandbLogger``: ``project``, ``name``, ``group``, ``tags`` and so on.
    """

    def __init__(self, logger: WandbLogger | None = None, mode: str | None = None, **settings: Any) -> None:
        self._logger, self._mode, self._settings = logger, mode, settings

    @property
    def logger(self) -> WandbLogger:
        """The Lightning logger; there is one once the sink has started."""
        assert self._logger is not None, "the sink has started"
        return self._logger

    @property
    def trainer_loggers(self) -> Sequence[Logger]:
        """The logger."""
        return (self.logger,)

    def start(self, config: Mapping[str, Any]) -> None:
        """Start the run; offline where there is no key, or no answer within half a minute."""
        if self._logger is None:
            self._logger = _start(self._mode, self._settings)
        self._logger.log_hyperparams(dict(config))

    def log(self, entry: Entry, step: int | None = None) -> None:
        """Log everything as one step; texts and scalars go into the run's summary as well."""
        import wandb

        run: Any = self.logger.experiment
        if entry.record:
            run.config.update({key: _plain(value) for key, value in entry.record.items()}, allow_val_change=True)
        media: dict[str, Any] = {
            f"tables/{name}": self._table(name, table) for name, table in entry.tables.items()
        }
        media = {name: table for name, table in media.items() if table is not None}
        for name, path in entry.files.items():
            artifact = wandb.Artifact(f"{name}-{run.id}", type=name)
            artifact.add_file(str(path), name=path.name)
            run.log_artifact(artifact)
        # Figures and not wandb.Html: that sanitises nothing, and tokens are untrusted text.
        media |= {name: wandb.Plotly(figure) for name, figure in entry.figures().items()}
        if media:
            run.log(media, commit=False)  # held back: log_metrics commits it together with the scalars as one step
        if entry.scalars:
            self.logger.log_metrics(dict(entry.scalars), step=step)
        self.logger.save()
        if step is None:
            run.summary.update({**entry.scalars, **entry.texts})
        elif entry.texts:
            run.summary.update(dict(entry.texts))

    def finish(self, exit_code: int = 0) -> list[str]:
        """Close the run; says where it is, or how to upload it."""
        import wandb

        if self._logger is None:
            return []
        self._logger.finalize("success" if exit_code == 0 else "failed")
        run: Any = self._logger.experiment
        lines = []
        if run.settings.mode == "offline":
            lines.append(f"W&B run kept offline; upload it with: wandb sync {run.settings.sync_dir}")
        elif run.url:
            lines.append(f"W&B: {run.url}")
        wandb.finish(exit_code=exit_code)
        return lines

    def _table(self, name: str, frame: pd.DataFrame) -> Any:
        """The table for the run's history; a long one goes as an artifact instead, and ``None`` is returned."""
        import wandb

        if len(frame) <= TABLE_ROWS:
            return wandb.Table(columns=list(frame.columns), data=table_cells(frame))
        run: Any = self.logger.experiment
        artifact = wandb.Artifact(f"{name}-{run.id}", type="table")
        with tempfile.TemporaryDirectory() as folder:
            artifact.add_file(str(write_parquet(Path(folder) / f"{name}.parquet", frame)))
            run.log_artifact(artifact)
        return None


def table_cells(frame: pd.DataFrame) -> list[list[Any]]:
    """Rows of a table as plain values, ``None`` for what is not known."""
    columns = frame.astype(object).where(frame.notna(), None)
    return [list(row) for row in columns.itertuples(index=False, name=None)]


def has_wandb_key() -> bool:
    """Whether Weights & Biases can log in without asking; a key that cannot be verified does not count.

    Starting a run without a key is an error in wandb, so ShiftLens asks first.
    """
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except wandb.errors.Error as error:
        log.warning("Weights & Biases cannot be used with this key; the run is kept offline: %s", error)
        return False


def _start(mode: str | None, settings: Mapping[str, Any]) -> WandbLogger:
    import wandb

    # The closing lines of a run say what matters; wandb's own summary would bury the findings.
    os.environ.setdefault("WANDB_SILENT", "true")
    mode = mode or os.environ.get("WANDB_MODE") or ("online" if has_wandb_key() else "offline")
    logger = WandbLogger(**settings, mode=mode, settings=wandb.Settings(init_timeout=30))
    try:
        logger.experiment  # noqa: B018  # starts the run
    except wandb.errors.Error as error:  # unreachable, or the key was refused: nothing may be lost
        log.warning(
            "Weights & Biases cannot be reached with this key; the run is kept offline: %s",
            str(error).splitlines()[0],
        )
        logger = WandbLogger(**settings, mode="offline")
    return logger


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
