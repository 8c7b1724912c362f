"""How a sweep is followed from its first job to its summary.

Hydra tells its callbacks when a sweep and each job start and end. Two of its habits do not fit a sweep of hours: a
failed job makes it raise when all are done, before it says that the sweep has ended; and a launcher that loses a
worker raises at once. So a failure is written down and taken from Hydra, and the summary is written when the
command ends, whatever ended it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, read_write

from shiftlens.errors import ShiftLensError
from shiftlens.support.libraries.hydra_parts import BASIC_LAUNCHER, BASIC_SWEEPER, combinations, error_of
from shiftlens.sweep.job_lines import Progress
from shiftlens.sweep.records import JOBS, JobRecord, Plan, label, swept

log = logging.getLogger(__name__)

_GROUP_LENGTH = 128  # W&B refuses longer names
_open: list[Progress] = []


class SweepCallback(Callback):
    """Writes the plan of a sweep and the record of each job. Holds nothing, as it travels to other processes."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the plan and begin to tell of finished jobs."""
        folder = Path(config.hydra.sweep.dir).absolute()
        _fix_folder(config, folder)
        if _rank() == 0:
            plan = Plan(planned_jobs(config), config.hydra.runtime.choices.get("hydra/launcher", "basic"))
            plan.write(folder)
            _open.append(Progress(folder, plan))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write down that the job has started."""
        if config.hydra.mode == RunMode.MULTIRUN and _rank() == 0:
            sweep = Path(config.hydra.sweep.dir)
            JobRecord(
                number=config.hydra.job.num,
                overrides=list(config.hydra.overrides.task),
                folder=os.path.relpath(config.hydra.runtime.output_dir, sweep),
                started=time.time(),
            ).write(sweep)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Write down how the job ended; a failure ends here, and the sweep goes on."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        error = error_of(job_return)
        if _rank() == 0:
            sweep = Path(config.hydra.sweep.dir)
            begun = JobRecord.read(sweep / JOBS / f"{config.hydra.job.num}.json")
            seconds = round(time.time() - begun.started, 3)
            message, where = _told(error) if error else ("", "")
            status = "failed" if error else "done"
            replace(begun, status=status, seconds=seconds, error=message, traceback=where).write(sweep)
        job_return.status, job_return.return_value = JobStatus.COMPLETED, None


@contextmanager
def summarised() -> Iterator[None]:
    """Around the command: if it was a sweep, write its summary at the end, whatever ended it.

    Raises:
        SystemExit: with code 1 if a job failed.
    """
    complete = True
    try:
        yield
    finally:
        while _open:
            complete = _open.pop().finish() and complete
    if not complete:
        sys.exit(1)


def planned_jobs(config: DictConfig) -> list[list[str]] | None:
    """The overrides of each job of a sweep, by number, as Hydra's own sweeper will make them.

    Args:
        config: the configuration of the sweep.

    Returns:
        ``None`` for other sweepers, which decide as they go.
    """
    if config.hydra.sweeper._target_ != BASIC_SWEEPER:
        return None
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    words += config.hydra.overrides.task
    return combinations(words)


def wandb_names(loggers: Mapping[str, Any] | None) -> dict[str, Any]:
    """The ``logger`` group with W&B runs of a sweep named by what sets the job apart, and grouped by sweep.

    What is set in the configuration stays.

    Args:
        loggers: name -> a node with ``_target_``.

    Example:
        >>> wandb_names({"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger"}})
        {'csv': {'_target_': 'lightning.pytorch.loggers.CSVLogger'}}
    """
    nodes = dict(loggers or {})
    if not in_sweep() or "wandb" not in nodes:
        return nodes
    hydra = HydraConfig.get()
    sweep, overrides = Path(hydra.sweep.dir), list(hydra.overrides.task)
    jobs = Plan.read(sweep).jobs
    name = label(overrides, swept(jobs or []))[:_GROUP_LENGTH]
    given = {key: value for key, value in nodes["wandb"].items() if value is not None}
    return {**nodes, "wandb": {**nodes["wandb"], "group": sweep.name[:_GROUP_LENGTH], "name": name, **given}}


def in_sweep() -> bool:
    """Whether this is a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def may_start_ranks() -> bool:
    """Whether further ranks can be started by running the command line again.

    In a sweep that holds where all jobs run in the process of the command: its ranks then go through all jobs
    side by side. Elsewhere a rank would begin the whole sweep anew.
    """
    return not in_sweep() or HydraConfig.get().launcher._target_ == BASIC_LAUNCHER


def _fix_folder(config: DictConfig, folder: Path) -> None:
    """Let all processes of the sweep mean one folder, whatever their time of day and working folder.

    Jobs compose their configuration anew from the overrides, ranks that Lightning starts from the command line.
    """
    quoted = str(folder).replace("'", "\\'")
    override = f"hydra.sweep.dir='{quoted}'"
    with read_write(config):
        config.hydra.overrides.hydra.append(override)
    sys.argv.append(override)


def _told(error: Exception) -> tuple[str, str]:
    if isinstance(error, ShiftLensError):
        return str(error), ""
    where = "".join(traceback.format_exception(error))
    log.error("the job failed\n%s", where)
    return f"{type(error).__name__}: {error}", where


def _rank() -> int:
    """The rank of this process, before torch is imported; in Lightning's order."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), 0)
