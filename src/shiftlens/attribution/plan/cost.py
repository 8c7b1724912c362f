"""What an attribution costs: rows of tokens multiplied with the weights, and the time of a row on this machine."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Bool
from transformers import PreTrainedModel

from shiftlens.attribution.llama.layer import takes
from shiftlens.attribution.modes.forward import forward
from shiftlens.attribution.modes.reverse import reverse
from shiftlens.attribution.plan.row_counts import carried, token_rows
from shiftlens.models.identity import digest
from shiftlens.support.whole_files import write_text

log = logging.getLogger(__name__)

REFUSALS = (RuntimeError, ValueError, AttributeError, TypeError, IndexError)
"""What transformations of a model that was not written for them raise; out of memory is told apart."""
_ENGINES = 4  # raised where an engine's speed changes, so that machines are measured again
_SMALL, _LARGE = 24, 72  # tokens of the two texts that are timed: a third each of template, prompt and response


@dataclass(frozen=True)
class Costs:
    """Time of an attribution, ``fixed + row * rows``, per engine; in seconds, or in any unit to compare.

    Args:
        forward_row: one token row in forward mode.
        reverse_row: one in reverse mode, where a row also pays its share of the forward pass and of the graph.
        forward_fixed: whatever the text.
        reverse_fixed: whatever the text.
        measured: whether these were timed on this machine.
    """

    forward_row: float
    reverse_row: float
    forward_fixed: float = 0.0
    reverse_fixed: float = 0.0
    measured: bool = False


UNMEASURED = Costs(forward_row=1.0, reverse_row=1.0)
"""LLaMA-type layers on a CPU core, float32, 135M parameters; used until a machine is measured."""


def best_cut(
    costs: Costs, sources: Sequence[int], total: int, response: int, fits: Bool[np.ndarray, " total"] | None = None
) -> tuple[int, float]:
    """Where tangents and cotangents meet at the least cost, and that cost.

    Args:
        costs: of this machine.
        sources: positions attributed to.
        total: number of ids.
        response: number of response tokens.
        fits: which cuts memory allows; all, if not given.

    Returns:
        The cut, the first source at the least, and its cost: infinite where no cut fits.

    Example:
        >>> best_cut(UNMEASURED, range(128), 192, 64)  # about as many positions as there are response tokens
        (63, 8192.0)
    """
    ahead, behind = carried(sources, total, response)
    time = costs.forward_row * ahead + costs.reverse_row * behind
    time = time + costs.forward_fixed * (ahead > 0) + costs.reverse_fixed * (behind > 0)
    if fits is not None:
        time = np.where(fits, time, np.inf)
    start = min(sources, default=0)  # a cut further ahead would carry rows that nobody wants
    cut = start + int(time[start:].argmin())
    return cut, float(time[cut])


def cheapest(
    costs: Costs,
    sources: Sequence[int],
    total: int,
    response: int,
    written_out: bool = False,
    fits: Bool[np.ndarray, " total"] | None = None,
    without: Collection[str] = (),
) -> str:
    """``forward``, ``reverse`` or ``mixed``, whichever these costs make the cheapest.

    Args:
        costs: of this machine.
        sources: positions attributed to.
        total: number of ids.
        response: number of response tokens.
        written_out: whether the layers are written out.
        fits: as in :func:`best_cut`, for ``mixed``.
        without: modes that are out of the question.

    Example:
        >>> for prompt, response in ((2, 300), (300, 2), (100, 100)):
        ...     total = prompt + response
        ...     print(cheapest(Costs(1.0, 1.0, 500.0, 500.0), range(prompt), total, response))
        forward
        reverse
        mixed
    """
    rows = {mode: token_rows(mode, sources, total, response, written_out) for mode in ("forward", "reverse")}
    times = {
        "forward": costs.forward_fixed + costs.forward_row * rows["forward"],
        "reverse": costs.reverse_fixed + costs.reverse_row * rows["reverse"],
        "mixed": best_cut(costs, sources, total, response, fits)[1],
    }
    # Of equals the first: a cut at an end is one of the pure modes.
    return min((mode for mode in times if mode not in without), key=times.__getitem__)


def calibrated(model: PreTrainedModel, cache: Path) -> Costs:
    """The costs of a model on this machine: from the cache, else timed now and cached.

    Timing takes some seconds on a CPU; texts are random ids. Concurrent processes time once.

    Args:
        model: the model, where it will run.
        cache: folder of cached files.

    Returns:
        Costs in seconds; :data:`UNMEASURED` where an engine cannot take the model.
    """
    path = cache / "calibration" / f"{_machine(model)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        try:
            return Costs(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            pass  # not there, or of another version: measure
        try:
            costs = _measure(model)
        except REFUSALS as error:
            log.info("the engines could not be timed: %s", error)
            return UNMEASURED
        write_text(path, json.dumps(asdict(costs)))
    return costs


def _machine(model: PreTrainedModel) -> str:
    """A name for model shape and machine: the same shape runs at the same speed, whatever its weights."""
    shapes = sorted([name, *parameter.shape] for name, parameter in model.named_parameters())
    device = model.device
    unit = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.processor()} {os.cpu_count()}"
    )
    return digest(
        {
            "shapes": shapes,
            "unit": [platform.node(), device.type, unit, torch.get_num_threads()],
            "dtype": [str(model.dtype), torch.backends.cuda.matmul.allow_tf32],
            "torch": torch.__version__,
            "written_out": takes(model, _LARGE),
            "engines": _ENGINES,
        }
    )


def _measure(model: PreTrainedModel) -> Costs:
    """Time each engine on a small and a larger text; a straight line through both."""
    lines = {}
    for mode, engine in (("forward", forward), ("reverse", reverse)):
        points = []
        for total in (_SMALL, _SMALL, _LARGE):  # the first run warms up
            ids = torch.randint(min(1000, model.config.get_text_config().vocab_size), (total,))
            third = total // 3
            sources = torch.arange(third, 2 * third)
            rows = token_rows(mode, sources.tolist(), total, third, takes(model, total))
            points.append((rows, _seconds(model, partial(engine, model, ids, sources, third, 16))))
        (_, _), (few, short), (many, long) = points
        row = max(long - short, 0.1 * long) / (many - few)  # a slower short run must not make rows free
        lines[mode] = (row, max(short - row * few, 0.0))
    return Costs(lines["forward"][0], lines["reverse"][0], lines["forward"][1], lines["reverse"][1], measured=True)


def _seconds(model: PreTrainedModel, run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - start
