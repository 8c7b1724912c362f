"""What a sweep keeps on disk about itself: the plan, and one record per job.

Jobs may run in other processes or on other machines, and their launcher may lose them. So a job writes its own
record into the sweep's folder when it starts and when it ends, and whoever wants to know reads the folder.
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
    """What a sweep set out to do.

    Args:
        jobs: the overrides of each job by number; ``None`` where the sweeper decides as it goes.
        launcher: where jobs run, e.g. ``joblib``.
    """

    jobs: list[list[str]] | None
    launcher: str

    def write(self, folder: Path) -> None:
        """Begin a sweep in ``folder``: write the plan, and forget the jobs of an earlier sweep there."""
        for old in (folder / JOBS).glob("*.json"):
            old.unlink()
        _write(folder / PLAN, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan of the sweep in ``folder``.

        Raises:
            FileNotFoundError: there is no sweep.
        """
        return cls(**json.loads((folder / PLAN).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class JobRecord:
    """What became of one job.

    Args:
        number: its place in the sweep, from 0.
        overrides: its settings as on the command line.
        status: ``done``, ``failed``, ``running``, ``lost`` (started, ended without a word) or ``not started``.
        folder: its run folder; relative to that of the sweep where it lies within.
        started: when, in seconds since 1970.
        seconds: how long it took.
        error: what went wrong, in the words of the error.
        traceback: where, for errors that are no fault of the settings.
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
        """Whether nothing more is to be expected of it."""
        return self.status != "running"

    def write(self, sweep: Path) -> None:
        """Write the record into the folder of its sweep."""
        _write(sweep / JOBS / f"{self.number}.json", asdict(self))

    @classmethod
    def read(cls, path: Path) -> JobRecord:
        """The record in a file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def read_jobs(sweep: Path) -> list[JobRecord]:
    """The records in the folder of a sweep, by number.

    Args:
        sweep: the folder.

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
    """The keys that are not the same in all jobs, in the order of the command line.

    Args:
        jobs: the overrides of each job.

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
    """Key and value of an override.

    Example:
        >>> split("saliency.b=0")
        ('saliency.b', '0')
    """
    key, _, value = override.partition("=")
    return key, value


def label(overrides: Sequence[str], keys: Sequence[str]) -> str:
    """What sets a job apart: its overrides of the swept keys, or all where nothing is swept.

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
