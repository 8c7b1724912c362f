"""Predicts the time of an attribution from its token rows and the cost of a row, and picks a mode and a cut."""

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
"""Errors of models that do not support a transformation; errors of full memory are recognized separately."""
_ENGINES = 4  # increase when an engine's speed changes, so that machines are measured again
_SMALL, _LARGE = 24, 72  # tokens of the two timed texts: one third each of template, prompt and response


@dataclass(frozen=True)
class Costs:
    """Coefficients of the time of an attribution, ``fixed + row * rows``, in seconds or any other unit.

    Args:
        forward_row: Time of one token row in forward mode.
        reverse_row: Time of one token row in reverse mode, with its share of the ordinary pass and of the graph.
        forward_fixed: Time in forward mode that does not depend on the text.
        reverse_fixed: Time in reverse mode that does not depend on the text.
        measured: Whether the times were measured on this machine.
    """

    forward_row: float
    reverse_row: float
    forward_fixed: float = 0.0
    reverse_fixed: float = 0.0
    measured: bool = False


UNMEASURED = Costs(forward_row=1.0, reverse_row=1.0)
"""Relative costs of LLaMA-type layers on a CPU core (float32, 135M parameters), for use without a measurement."""


def best_cut(
    costs: Costs, sources: Sequence[int], total: int, response: int, fits: Bool[np.ndarray, " total"] | None = None
) -> tuple[int, float]:
    """Find the cut where tangents and cotangents together cost least.

    Args:
        costs: Measured cost of a token row, for this model on this machine.
        sources: Positions to attribute to.
        total: Number of ids.
        response: Number of response tokens.
        fits: For each cut, whether it fits in memory; by default all cuts fit.

    Returns:
        The cut, at or after the first source, and its cost, which is infinite if no cut fits.

    Example:
        >>> best_cut(UNMEASURED, range(128), 192, 64)  # about as many positions as there are response tokens
        (63, 8192.0)
    """
    tangent_rows, cotangent_rows = carried(sources, total, response)  # [total] each
    time = costs.forward_row * tangent_rows + costs.reverse_row * cotangent_rows
    time = time + costs.forward_fixed * (tangent_rows > 0) + costs.reverse_fixed * (cotangent_rows > 0)
    if fits is not None:
        time = np.where(fits, time, np.inf)
    start = min(sources, default=0)  # an earlier cut would add rows that no source needs
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
    """Return the mode that costs least: ``forward``, ``reverse`` or ``mixed``.

    Args:
        costs: Measured cost of a token row, for this model on this machine.
        sources: Positions to attribute to.
        total: Number of ids.
        response: Number of response tokens.
        written_out: Whether the derivatives are hand-written.
        fits: For each cut of ``mixed``, whether it fits in memory; by default all cuts fit.
        without: Modes to leave out.

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
    # Of equal times the first wins: a cut at either end is the same as forward or reverse mode.
    return min((mode for mode in times if mode not in without), key=times.__getitem__)


def calibrated(model: PreTrainedModel, cache: Path) -> Costs:
    """Load the costs of a model on this machine from a cache; if they are missing, measure and cache them.

    The measurement takes some seconds on a CPU, and uses random ids as texts. Of several concurrent processes only
    one measures.

    Args:
        model: Causal language model, on the device where it will run.
        cache: Folder of cached files.

    Returns:
        Costs in seconds, or :data:`UNMEASURED` if an engine does not support the model.
    """
    path = cache / "calibration" / f"{_machine(model)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        try:
            return Costs(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            pass  # the file is missing, damaged or of another version, so measure
        try:
            costs = _measure(model)
        except REFUSALS as error:
            log.info("the engines could not be timed: %s", error)
            return UNMEASURED
        write_text(path, json.dumps(asdict(costs)))
    return costs


def _machine(model: PreTrainedModel) -> str:
    """Hash the shapes of a model and the properties of the machine; the speed does not depend on the weights."""
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
    """Time each engine on a small and a large text, and fit a straight line through both times."""
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
        row = max(long - short, 0.1 * long) / (many - few)  # positive even if the short run was slower
        lines[mode] = (row, max(short - row * few, 0.0))
    return Costs(lines["forward"][0], lines["reverse"][0], lines["forward"][1], lines["reverse"][1], measured=True)


def _seconds(model: PreTrainedModel, run: Callable[[], object]) -> float:
    """Measure the time of a call, including work that is queued on the model's GPU."""
    start = time.perf_counter()
    run()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - start
