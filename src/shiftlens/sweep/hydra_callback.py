"""Records the jobs of a sweep through Hydra's callbacks, and writes the summary at the end.

Hydra calls its callbacks when a sweep and each job start and end. Two properties of Hydra do not fit a sweep of
hours: after a failed job it raises once all jobs are done, before the callback for the end of the sweep; and a
launcher that loses a worker raises at once. So the callback records a failure and hides it from Hydra, and the
summary is written when the command ends, for whatever reason.
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
    """Writes the plan of a sweep and the record of each job; stateless, as it is pickled to other processes."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the plan, and start to print a line for each finished job."""
        folder = Path(config.hydra.sweep.dir).absolute()
        _fix_folder(config, folder)
        if _rank() == 0:
            plan = Plan(planned_jobs(config), config.hydra.runtime.choices.get("hydra/launcher", "basic"))
            plan.write(folder)
            _open.append(Progress(folder, plan))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the record of a started job."""
        if config.hydra.mode == RunMode.MULTIRUN and _rank() == 0:
            sweep = Path(config.hydra.sweep.dir)
            JobRecord(
                number=config.hydra.job.num,
                overrides=list(config.hydra.overrides.task),
                folder=os.path.relpath(config.hydra.runtime.output_dir, sweep),
                started=time.time(),
            ).write(sweep)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Add the outcome to the record of the job; hide a failure from Hydra, so that the sweep continues."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        error = error_of(job_return)
        if _rank() == 0:
            sweep = Path(config.hydra.sweep.dir)
            started = JobRecord.read(sweep / JOBS / f"{config.hydra.job.num}.json")
            seconds = round(time.time() - started.started, 3)
            message, trace = _describe(error) if error else ("", "")
            status = "failed" if error else "done"
            replace(started, status=status, seconds=seconds, error=message, traceback=trace).write(sweep)
        job_return.status, job_return.return_value = JobStatus.COMPLETED, None


@contextmanager
def summarised() -> Iterator[None]:
    """Wrap the command: if the command is a sweep, write the summary at the end, even after an error.

    Raises:
        SystemExit: A job failed or did not finish; the exit code is 1.
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
    """List the overrides of each job, as Hydra's basic sweeper will generate them.

    Args:
        config: Configuration of the sweep.

    Returns:
        Overrides of each job, by number; ``None`` for other sweepers, which choose jobs during the sweep.
    """
    if config.hydra.sweeper._target_ != BASIC_SWEEPER:
        return None
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    words += config.hydra.overrides.task
    return combinations(words)


def wandb_names(loggers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Name the W&B run of a job by the job's swept overrides, and group the runs by sweep.

    Values set in the configuration are kept.

    Args:
        loggers: The ``logger`` group: name -> a node with ``_target_``.

    Returns:
        The ``logger`` group, with the name and group of the W&B logger if this is a job of a sweep.

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
    """Tell whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def may_start_ranks() -> bool:
    """Tell whether running the command line again can start further ranks.

    In a sweep this is possible if all jobs run in the process of the command: each rank then runs all jobs in
    parallel with the other ranks. With other launchers, a new rank would start the whole sweep again.
    """
    return not in_sweep() or HydraConfig.get().launcher._target_ == BASIC_LAUNCHER


def _fix_folder(config: DictConfig, folder: Path) -> None:
    """Fix the sweep's folder for all processes, because a default may depend on the time and the working folder.

    Jobs compose their configuration again from the overrides; ranks that Lightning starts, from the command line.
    """
    quoted = str(folder).replace("'", "\\'")
    override = f"hydra.sweep.dir='{quoted}'"
    with read_write(config):
        config.hydra.overrides.hydra.append(override)
    sys.argv.append(override)


def _describe(error: Exception) -> tuple[str, str]:
    """Return message and traceback of an error; errors of the settings have no traceback."""
    if isinstance(error, ShiftLensError):
        return str(error), ""
    trace = "".join(traceback.format_exception(error))
    log.error("the job failed\n%s", trace)
    return f"{type(error).__name__}: {error}", trace


def _rank() -> int:
    """Read the rank of this process from the environment, in Lightning's order, without importing torch."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), 0)
