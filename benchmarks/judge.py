"""Compares the contenders' numbers with float64, and their times only if the numbers agree."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from contender import Found, Setup, Worker
from flops import needed
from jaxtyping import Float
from serve import Task
from transformers import AutoConfig

EVEN = 4
"""Number of evenly spaced columns at which the float64 reference is always checked."""
REFERENCE_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Result:
    """Result of one contender at one shape.

    Args:
        name: Name of the contender.
        title: Name and version, for the table.
        mode: Way in which the values were computed, one of :data:`flops.WAYS`.
        seconds: Median time in seconds.
        times: All times in seconds.
        ratio: Median over rounds of the contender's time divided by that of the first contender; ``None`` if the
            numbers of either are wrong.
        error: Largest error against float64 over all columns, relative to the column's largest entry.
        median_error: Median over columns of the column's largest error.
        peak: Peak resident memory of the process in bytes.
        loaded: Resident memory in bytes after loading the model.
        share: Operations that the mode needs, per second, divided by those of a large matrix product.
    """

    name: str
    title: str
    mode: str
    seconds: float
    times: list[float]
    ratio: float | None
    error: float
    median_error: float
    peak: int
    loaded: int
    share: float


def judge(
    runs_by_name: Mapping[str, Sequence[Found]],
    titles: Mapping[str, str],
    task: Task,
    setup: Setup,
    tolerance: float,
    peak: float,
) -> list[Result]:
    """Compare all contenders with the float64 values, and their times with those of the first contender.

    Args:
        runs_by_name: Contender -> its runs; the times of all are compared with those of the first.
        titles: Contender -> name and version.
        task: Text that was explained.
        setup: Settings that all contenders share.
        tolerance: Largest error that counts as equal.
        peak: Floating-point operations per second of a large matrix product.

    Returns:
        One result per contender, in the order of ``runs_by_name``.
    """
    off = errors({name: runs[-1] for name, runs in runs_by_name.items()}, task, setup)
    config = AutoConfig.from_pretrained(setup.model)
    first = next(iter(runs_by_name))
    results = []
    for name, runs in runs_by_name.items():
        seconds = statistics.median(run.seconds for run in runs)
        operations = needed(config, runs[-1].mode, len(task.ids) - task.response, task.response)
        pairs = zip(runs, runs_by_name[first], strict=False)  # slow contenders run in fewer rounds
        equal = max(off[name].max(), off[first].max()) <= tolerance
        results.append(
            Result(
                name=name,
                title=titles[name],
                mode=runs[-1].mode,
                seconds=seconds,
                times=[run.seconds for run in runs],
                ratio=statistics.median(run.seconds / base.seconds for run, base in pairs) if equal else None,
                error=float(off[name].max()),
                median_error=float(np.median(off[name])),
                peak=max(run.peak for run in runs),
                loaded=runs[-1].loaded,
                share=operations / seconds / peak,
            )
        )
    return results


def errors(answers: Mapping[str, Found], task: Task, setup: Setup) -> dict[str, Float[np.ndarray, " columns"]]:
    """Return the error of every contender in every column, against float64.

    The float64 values come from an engine. They are checked against the plain loop in float64, at the column with
    the largest error of each contender and at evenly spaced columns.

    Raises:
        SystemExit: Engine and plain loop disagree in float64.
    """
    with Worker("exact", setup) as worker:
        worker.ready()
        exact = worker.run(task)
        assert exact.log_probability is not None
        off = {
            name: differences(in_log(run, exact.log_probability), exact.values) for name, run in answers.items()
        }
        columns = chosen_columns(off)
        plain = worker.run(replace(task, columns=columns)).values
    doubt = differences(exact.values[:, columns], plain).max()
    if doubt > REFERENCE_TOLERANCE:
        raise SystemExit(f"engine and plain loop differ by {doubt:.1e} in float64: no truth to compare with")
    return off


def in_log(answer: Found, log_probability: Float[np.ndarray, " columns"]) -> Float[np.ndarray, "prompt columns"]:
    """Return the values as derivatives of log p, by d p = p d log p."""
    values = answer.values.astype(np.float64)
    return values / np.exp(log_probability) if answer.target == "probability" else values


def differences(
    values: Float[np.ndarray, "prompt columns"], truth: Float[np.ndarray, "prompt columns"]
) -> Float[np.ndarray, " columns"]:
    """Return the largest difference per column, relative to the column's largest entry; infinite if not finite.

    Example:
        >>> differences(np.array([[1.0, 2.0], [0.0, 5.0]]), np.array([[1.0, 2.0], [0.5, 4.0]]))
        array([0.5 , 0.25])
    """
    off = np.abs(values - truth).max(0) / np.abs(truth).max(0)
    return np.where(np.isfinite(off), off, np.inf)


def chosen_columns(off: Mapping[str, Float[np.ndarray, " columns"]]) -> list[int]:
    """Return the columns to check: the one with the largest error of each contender, and evenly spaced ones.

    Example:
        >>> chosen_columns({"a": np.eye(10)[1], "b": np.eye(10)[7]})
        [0, 1, 3, 6, 7, 9]
    """
    columns = len(next(iter(off.values())))
    even = np.linspace(0, columns - 1, EVEN).round().astype(int).tolist()
    return sorted({*even, *(int(values.argmax()) for values in off.values())})
