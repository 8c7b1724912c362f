"""Sweeps: what became of each job, and one summary of all of them.

Light to import: the command line asks for :class:`SweepCallback` before it knows whether there is a sweep.
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
