"""Sweeps: records the outcome of each job, and writes one summary of all jobs.

This package must import quickly: every command imports :class:`SweepCallback`, whether or not it is a sweep.
"""

from shiftlens.sweep.hydra_callback import SweepCallback, in_sweep, may_start_ranks, summarised, wandb_names
from shiftlens.sweep.launchers import check_launcher
from shiftlens.sweep.records import JobRecord, Plan

__all__ = [
    "JobRecord",
    "Plan",
    "SweepCallback",
    "check_launcher",
    "in_sweep",
    "may_start_ranks",
    "summarised",
    "wandb_names",
]
