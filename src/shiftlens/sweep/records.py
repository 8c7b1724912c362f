"""Stores the plan of a sweep and one record per job, as files in the folder of the sweep.

Jobs may run in other processes or on other machines, and a launcher may lose jobs. So each job writes its own
record into the folder of the sweep when the job starts and when it ends; the summary reads the records there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PLAN = "sweep.json"
JOBS = "jobs"


@dataclass(frozen=True)
class Plan:
    """Jobs that a sweep intends to run.

    Args:
        jobs: Overrides of each job, by number; ``None`` if the sweeper chooses jobs during the sweep.
        launcher: Name of the launcher, e.g. ``joblib``.
    """

    jobs: list[list[str]] | None
    launcher: str

    def write(self, folder: Path) -> None:
        """Write the plan into ``folder``, and delete the job records of an earlier sweep there."""
        for old in (folder / JOBS).glob("*.json"):
            old.unlink()
        _write(folder / PLAN, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Read the plan of the sweep in ``folder``.

        Raises:
            FileNotFoundError: The folder holds no sweep.
        """
        return cls(**json.loads((folder / PLAN).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class JobRecord:
    """Settings and outcome of one job.

    Args:
        number: Number of the job in the sweep, from 0.
        overrides: Settings of the job, as on the command line.
        status: ``done``, ``failed``, ``running``, ``lost`` (started, but no end recorded) or ``not started``.
        folder: Run folder of the job, relative to the folder of the sweep.
        started: Time of the start, in seconds since 1970.
        seconds: Duration in seconds.
        error: Message of the error; ``""`` if there was none.
        traceback: Traceback of the error; ``""`` for errors that the settings caused.
    """

    number: int
    overrides: list[str] = field(default_factory=list)
    status: str = "running"
    folder: str = ""
    started: float = 0.0
    seconds: float = 0.0
    error: str = ""
    traceback: str = ""

    @property
    def ended(self) -> bool:
        """Whether the job is no longer running."""
        return self.status != "running"

    def write(self, sweep: Path) -> None:
        """Write the record into the folder of the sweep."""
        _write(sweep / JOBS / f"{self.number}.json", asdict(self))

    @classmethod
    def read(cls, path: Path) -> JobRecord:
        """Read the record from a file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def read_jobs(sweep: Path) -> list[JobRecord]:
    """Read all job records of a sweep, sorted by number.

    Args:
        sweep: Folder of the sweep.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     JobRecord(10, ["saliency.b=3"]).write(Path(folder))
        ...     JobRecord(9, ["saliency.b=0"], "done").write(Path(folder))
        ...     [(job.number, job.status) for job in read_jobs(Path(folder))]
        [(9, 'done'), (10, 'running')]
    """
    files = (sweep / JOBS).glob("[0-9]*.json")
    return sorted((JobRecord.read(path) for path in files), key=lambda record: record.number)


def swept(jobs: Sequence[Sequence[str]]) -> list[str]:
    """List the keys whose values differ between jobs, in the order of the command line.

    Args:
        jobs: Overrides of each job.

    Example:
        >>> swept([["model=a", "saliency.b=0", "saliency.p=2"], ["model=a", "saliency.b=3", "saliency.p=2"]])
        ['saliency.b']
        >>> swept([["model=a", "seed=1"]])
        []
    """
    settings = [dict(split(word) for word in job) for job in jobs]
    keys = dict.fromkeys(key for job in settings for key in job)
    return [key for key in keys if len({job.get(key) for job in settings}) > 1]


def split(override: str) -> tuple[str, str]:
    """Split an override into key and value.

    Example:
        >>> split("saliency.b=0")
        ('saliency.b', '0')
    """
    key, _, value = override.partition("=")
    return key, value


def label(overrides: Sequence[str], keys: Sequence[str]) -> str:
    """Label a job by its overrides of the swept keys, or by all its overrides if no key is swept.

    Args:
        overrides: Overrides of the job.
        keys: Swept keys.

    Example:
        >>> label(["model=a", "saliency.b=0"], ["saliency.b"])
        'saliency.b=0'
    """
    return " ".join(word for word in overrides if not keys or split(word)[0] in keys)


def line(job: JobRecord, keys: list[str]) -> str:
    """Describe the outcome of a job in one line.

    Args:
        job: Record of the job.
        keys: Swept keys.

    Example:
        >>> line(JobRecord(3, ["saliency.b=99"], "failed", seconds=2.0, error="b must be below L"), ["saliency.b"])
        'job 3 failed after 2 s: saliency.b=99: b must be below L'
        >>> line(JobRecord(0, ["saliency.b=0"], "done", seconds=71.4), ["saliency.b"])
        'job 0 done in 71 s: saliency.b=0'
    """
    what = label(job.overrides, keys)
    if job.status == "done":
        return f"job {job.number} done in {job.seconds:.0f} s: {what}"
    error = job.error.partition("\n")[0]
    return f"job {job.number} {job.status} after {job.seconds:.0f} s: {what}: {error}"


def _write(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
