"""A line for each job that ends, and the summary when all have."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

from shiftlens.sweep.records import Plan, line, read_jobs, swept

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
