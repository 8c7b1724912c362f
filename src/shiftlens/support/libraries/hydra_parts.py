"""Private parts of Hydra: its own launcher and sweeper, the jobs of a sweep, the error of a job."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_launcher import BasicLauncherConf
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus

BASIC_LAUNCHER: str = BasicLauncherConf._target_
"""``_target_`` of the launcher that runs jobs in the process of the command."""
BASIC_SWEEPER: str = BasicSweeperConf._target_
"""``_target_`` of the sweeper that makes every combination."""


def combinations(words: Sequence[str]) -> list[list[str]]:
    """Overrides of each job of a sweep, by number, as Hydra's own sweeper makes them.

    Args:
        words: Overrides of the command line, with several values where they are swept.
    """
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    return [list(job) for job in BasicSweeper.split_arguments(parser.parse_overrides(list(words)), None)[0]]


def error_of(job: JobReturn) -> Exception | None:
    """The error that ended a job; ``None`` if it succeeded.

    Args:
        job: What Hydra tells a callback at the end of a job. Its public ``return_value`` raises the error.
    """
    error: Exception | None = job._return_value if job.status == JobStatus.FAILED else None
    return error
