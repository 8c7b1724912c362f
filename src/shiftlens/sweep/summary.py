"""Writes the summary of a sweep: tables, and one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from shiftlens.errors import ConfigError
from shiftlens.support.whole_files import write_parquet, write_text
from shiftlens.sweep.cells import cells_table
from shiftlens.sweep.records import PLAN, JobRecord, Plan, label, line, read_jobs, split, swept
from shiftlens.sweep.sweep_page import SweepHead, write_sweep_report


@dataclass(frozen=True)
class Summary:
    """Outcome of a sweep.

    Args:
        folder: Folder of the sweep.
        jobs: Records of all jobs, including jobs that never started.
        cells: Table with one row per finding and job, see :func:`~shiftlens.sweep.cells.cells_table`.
        page: HTML file of the summary.
    """

    folder: Path
    jobs: Sequence[JobRecord]
    cells: pd.DataFrame
    page: Path

    @property
    def complete(self) -> bool:
        """Whether every job is done."""
        return all(job.status == "done" for job in self.jobs)

    def lines(self) -> list[str]:
        """Compose the lines to print at the end of a sweep."""
        keys = swept([job.overrides for job in self.jobs])
        done = sum(job.status == "done" for job in self.jobs)
        offline = any(self.folder.glob("*/wandb/offline-run-*"))
        return [
            f"Sweep: {done} of {len(self.jobs)} jobs done",
            *(f"  {line(job, keys)}" for job in self.jobs if job.status != "done"),
            f"Summary: {self.page}",
            *(
                [f"W&B runs kept offline; upload them with: wandb sync {self.folder}/*/wandb/offline-run-*"]
                * offline
            ),
        ]


def summarise(folder: Path) -> Summary:
    """Read the results of a sweep's jobs; write ``summary.html`` and ``tables/{cells,jobs}.{parquet,csv}``.

    Args:
        folder: Folder of the sweep. Jobs that end later are included only in a later summary.

    Raises:
        ConfigError: The folder holds no sweep.
    """
    if not (folder / PLAN).is_file():
        raise ConfigError(f"{folder}: no sweep ({PLAN}) here; give the folder that holds the numbered ones")
    plan = Plan.read(folder)
    jobs = all_jobs(plan, read_jobs(folder))
    cells = cells_table(folder, jobs)
    table = pd.DataFrame([asdict(replace(job, overrides=[])) for job in jobs], columns=list(asdict(JobRecord(0))))
    keys = swept([job.overrides for job in jobs])
    table["overrides"] = [" ".join(job.overrides) for job in jobs]
    for name, frame in {"cells": cells, "jobs": table}.items():
        write_parquet(folder / "tables" / f"{name}.parquet", frame)
        write_text(folder / "tables" / f"{name}.csv", frame.to_csv(index=False))
    labels = {job.number: label(job.overrides, keys) for job in jobs}
    same = [word for word in jobs[0].overrides if split(word)[0] not in keys] if jobs and keys else []
    page = write_sweep_report(folder / "summary.html", table, cells, SweepHead(keys, same, labels, plan.launcher))
    return Summary(folder, jobs, cells, page)


def all_jobs(plan: Plan, records: Sequence[JobRecord]) -> list[JobRecord]:
    """List all jobs of a sweep whose command has ended, sorted by number.

    Jobs without a recorded end become ``lost``; planned jobs without a record become ``not started``.

    Args:
        plan: Plan of the sweep.
        records: Records that the jobs wrote.

    Example:
        >>> plan = Plan([["b=0"], ["b=1"], ["b=2"]], "joblib")
        >>> jobs = all_jobs(plan, [JobRecord(0, ["b=0"], "done"), JobRecord(1)])
        >>> [(job.number, job.status) for job in jobs]
        [(0, 'done'), (1, 'lost'), (2, 'not started')]
    """
    known = {job.number: job if job.ended else replace(job, status="lost", error=_LOST) for job in records}
    for number, overrides in enumerate(plan.jobs or []):
        known.setdefault(number, JobRecord(number, overrides, "not started", error=_NOT_STARTED))
    return [known[number] for number in sorted(known)]


_LOST = "no word of its end: it was killed (memory or time ran out?), or is still at work"
_NOT_STARTED = "the sweep ended before its turn came"
