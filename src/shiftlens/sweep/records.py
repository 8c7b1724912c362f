"""Keeps the records of a sweep on disk: the plan, and one record per job.

Jobs may run in other processes or on other machines, and their launcher may lose them. So a job writes its own
record into the folder of the sweep when it starts and when it ends, and the summary reads the folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shiftlens.support.whole_files import write_text

PLAN = "sweep.json"
JOBS = "jobs"


@dataclass(frozen=True)
class Plan:
    """Plan of a sweep.

    Args:
        jobs: Overrides of each job by number; ``None`` where the sweeper decides during the sweep.
        launcher: Launcher of the jobs, e.g. ``joblib``.
    """

    jobs: list[list[str]] | None
    launcher: str

    def write(self, folder: Path) -> None:
        """Begin a sweep in ``folder``: write the plan, and delete the records of an earlier sweep there."""
        for old in (folder / JOBS).glob("*.json"):
            old.unlink()
        _write(folder / PLAN, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Read the plan of the sweep in ``folder``.

        Raises:
            FileNotFoundError: There is no sweep.
        """
        return cls(**json.loads((folder / PLAN).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class JobRecord:
    """Outcome of one job.

    Args:
        number: Number of the job in the sweep, from 0.
        overrides: Settings of the job as on the command line.
        status: ``done``, ``failed``, ``running``, ``lost`` (ended without a record) or ``not started``.
        folder: Run folder of the job; relative to the folder of the sweep where it lies within.
        started: Start of the job in seconds since 1970.
        seconds: Duration of the job in seconds.
        error: Message of the error that ended the job.
        traceback: Traceback of an error that is no fault of the settings.
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
        """Whether the record of the job is final."""
        return self.status != "running"

    def write(self, sweep: Path) -> None:
        """Write the record into the folder of the sweep."""
        _write(sweep / JOBS / f"{self.number}.json", asdict(self))

    @classmethod
    def read(cls, path: Path) -> JobRecord:
        """Read the record in a file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def read_jobs(sweep: Path) -> list[JobRecord]:
    """Read the records in the folder of a sweep, sorted by number.

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
    """Name a job by its overrides of the swept keys, or by all of them where nothing is swept.

    Example:
        >>> label(["model=a", "saliency.b=0"], ["saliency.b"])
        'saliency.b=0'
    """
    return " ".join(word for word in overrides if not keys or split(word)[0] in keys)


def line(job: JobRecord, keys: list[str]) -> str:
    """One job in one line.

    Args:
        job: its record.
        keys: the swept keys.

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
    write_text(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
