"""Measures the cost of a token row on this machine, and keeps it for later runs."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

import torch
from filelock import FileLock
from transformers import PreTrainedModel

from shiftlens.attribution.llama.layer import written_out
from shiftlens.attribution.modes.forward import forward
from shiftlens.attribution.modes.reverse import reverse
from shiftlens.attribution.plan.cost import REFUSALS, UNMEASURED, Costs
from shiftlens.attribution.plan.row_counts import token_rows
from shiftlens.models.identity import digest
from shiftlens.support.whole_files import write_text

log = logging.getLogger(__name__)

_ENGINES = 4  # increase when an engine's speed changes, so that machines are measured again
_SMALL, _LARGE = 24, 72  # tokens of the two timed texts: one third each of template, prompt and response
_ROUNDS = 3
_MODES = {"forward": forward, "reverse": reverse}
_MOST_RATIO = 3.0  # between the costs of a row in the two modes; both do about the same arithmetic


class ImplausibleError(ValueError):
    """Measured times that no engine has on a machine that does nothing else."""


def calibrated(model: PreTrainedModel, cache: Path) -> Costs:
    """Load the costs of a model on this machine from a cache; if they are missing, measure and cache them.

    The measurement takes some seconds on a CPU, and uses random ids as texts. Of several concurrent processes only
    one measures. Implausible times, which other work on the machine can cause, are not kept, so the next run
    measures again.

    Args:
        model: Causal language model, on the device where it will run.
        cache: Folder of cached files.

    Returns:
        Costs in seconds, or :data:`~shiftlens.attribution.plan.cost.UNMEASURED` if an engine does not support the
        model or the measured times are implausible.
    """
    path = _path(model, model.device, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if known := _read(path):
            return known
        try:
            costs = _measure(model)
        except ImplausibleError as error:
            log.warning("%s; saliency.mode=auto goes by relative costs, and the next run measures again", error)
            return UNMEASURED
        except REFUSALS as error:
            log.info("the engines could not be timed: %s", error)
            return UNMEASURED
        write_text(path, json.dumps(asdict(costs)))
    return costs


def known_costs(model: PreTrainedModel, device: torch.device, cache: Path) -> Costs:
    """Load the costs of a model of this shape without measuring anything.

    Args:
        model: Causal language model; its weights may be on the device ``meta``, without values.
        device: Device where the model would run.
        cache: Folder of cached files.

    Returns:
        Costs in seconds, or :data:`~shiftlens.attribution.plan.cost.UNMEASURED` if they were not measured.
    """
    return _read(_path(model, device, cache)) or UNMEASURED


def _read(path: Path) -> Costs | None:
    """Read measured costs; ``None`` if the file is missing, damaged or of another version."""
    try:
        costs = Costs(**json.loads(path.read_text()))
        return costs if costs.age_days is not None else None
    except (OSError, ValueError, TypeError):
        return None


def _path(model: PreTrainedModel, device: torch.device, cache: Path) -> Path:
    """Name the file by a hash of the model's shapes and the machine; the speed does not depend on the weights."""
    shapes = sorted([name, *parameter.shape] for name, parameter in model.named_parameters())
    unit = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.processor()} {os.cpu_count()}"
    )
    machine = {
        "shapes": shapes,
        "unit": [platform.node(), device.type, unit, torch.get_num_threads()],
        "dtype": [str(model.dtype), torch.backends.cuda.matmul.allow_tf32],
        "torch": torch.__version__,
        "written_out": written_out(model, _LARGE),
        "engines": _ENGINES,
    }
    return cache / "calibration" / f"{digest(machine)}.json"


def _measure(model: PreTrainedModel) -> Costs:
    """Time each engine on a small and a large text, and fit a straight line through the two median times.

    The runs alternate between modes and texts, so that other work on the machine slows all of them alike.

    Raises:
        ImplausibleError: A line is implausible; the message has the measured values.
    """
    runs = {(mode, total): _run(model, mode, total) for total in (_SMALL, _LARGE) for mode in _MODES}
    for mode in _MODES:  # warm up
        runs[mode, _SMALL]()
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(_ROUNDS):
        for key, run in runs.items():
            times[key].append(_seconds(model, run))
    lines = {
        mode: _line(model, mode, *(median(times[mode, total]) for total in (_SMALL, _LARGE))) for mode in _MODES
    }
    (forward_row, forward_fixed), (reverse_row, reverse_fixed) = lines["forward"], lines["reverse"]
    if not 1 / _MOST_RATIO <= forward_row / reverse_row <= _MOST_RATIO:
        raise ImplausibleError(
            f"a token row was timed at {forward_row * 1e3:.3g} ms in forward mode and {reverse_row * 1e3:.3g} ms "
            "in reverse, as on a machine with other work"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Costs(forward_row, reverse_row, forward_fixed, reverse_fixed, measured_at=now)


def _run(model: PreTrainedModel, mode: str, total: int) -> Callable[[], object]:
    """Make a call that explains a random text of ``total`` ids, a third of which is the response."""
    ids = torch.randint(min(1000, model.config.get_text_config().vocab_size), (total,))
    return partial(_MODES[mode], model, ids, torch.arange(total // 3, 2 * (total // 3)), total // 3, 16)


def _line(model: PreTrainedModel, mode: str, short: float, long: float) -> tuple[float, float]:
    """Return the cost of a row and the fixed part, in seconds, from the times of the small and the large text."""
    few, many = (
        token_rows(mode, range(total // 3, 2 * (total // 3)), total, total // 3, written_out(model, total))
        for total in (_SMALL, _LARGE)
    )
    # The floor is for GPUs, which take the same time for both texts of a small model.
    row = max(long - short, 0.1 * long) / (many - few)
    fixed = max(short - row * few, 0.0)
    if row <= 0 or fixed > long:
        raise ImplausibleError(
            f"in {mode} mode a text of {_SMALL} tokens took {short:.3g} s and one of {_LARGE} {long:.3g} s, as on "
            "a machine with other work"
        )
    return row, fixed


def _seconds(model: PreTrainedModel, run: Callable[[], object]) -> float:
    """Measure the time of a call, including work that is queued on the model's GPU."""
    start = time.perf_counter()
    run()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - start
