"""A line for each job that ends, and the summary when all have."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

from shiftlens.sweep.records import JobRecord, Plan, label, read_jobs, swept

_POLL = 0.5  # seconds between looks into the folder


class Progress:
    """Tells of the jobs of a sweep as they end, wherever they run, from their records.

    Args:
        folder: of the sweep.
        plan: of the sweep.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self._told: set[int] = set()
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="sweep-progress", daemon=True)
        self._thread.start()

    def finish(self) -> bool:
        """Stop watching, write the summary and say where it lies.

        Returns:
            Whether every job was done.
        """
        # Imported here: the command line starts without pandas.
        from shiftlens.sweep.summary import summarise

        self._stop.set()
        self._thread.join()
        self._tell()
        summary = summarise(self.folder)
        print("\n".join(["", *summary.lines()]), flush=True)
        return summary.complete

    def _watch(self) -> None:
        while not self._stop.wait(_POLL):
            self._tell()

    def _tell(self) -> None:
        jobs = read_jobs(self.folder)
        keys = swept(self.plan.jobs or [job.overrides for job in jobs])
        for job in jobs:
            if job.ended and job.number not in self._told:
                self._told.add(job.number)
                total = len(self.plan.jobs) if self.plan.jobs is not None else "?"
                print(f"[{len(self._told)}/{total}] {line(job, keys)}", flush=True)


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
