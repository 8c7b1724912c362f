"""Prints a line for each job that ends, and the summary at the end of the sweep."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

from shiftlens.sweep.records import Plan, line, read_jobs, swept

_POLL = 0.5  # seconds between two reads of the folder


class Progress:
    """Prints a line for each job as it ends, on any machine, by reading the job records in a thread.

    Args:
        folder: Folder of the sweep.
        plan: Plan of the sweep.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self._printed: set[int] = set()
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="sweep-progress", daemon=True)
        self._thread.start()

    def finish(self) -> bool:
        """Stop the thread, write the summary and print its path.

        Returns:
            Whether every job is done.
        """
        # Imported here because the command line must start without pandas.
        from shiftlens.sweep.summary import summarise

        self._stop.set()
        self._thread.join()
        self._print_ended()
        summary = summarise(self.folder)
        print("\n".join(["", *summary.lines()]), flush=True)
        return summary.complete

    def _watch(self) -> None:
        while not self._stop.wait(_POLL):
            self._print_ended()

    def _print_ended(self) -> None:
        jobs = read_jobs(self.folder)
        keys = swept(self.plan.jobs or [job.overrides for job in jobs])
        for job in jobs:
            if job.ended and job.number not in self._printed:
                self._printed.add(job.number)
                total = len(self.plan.jobs) if self.plan.jobs is not None else "?"
                print(f"[{len(self._printed)}/{total}] {line(job, keys)}", flush=True)
