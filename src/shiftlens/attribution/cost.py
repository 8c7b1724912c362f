"""What an attribution costs: rows of tokens multiplied with the weights, and the time of a row on this machine."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock
from transformers import PreTrainedModel

from shiftlens.attribution.forward import forward
from shiftlens.attribution.llama_layer import takes
from shiftlens.attribution.reverse import reverse
from shiftlens.models.identity import digest

log = logging.getLogger(__name__)

REFUSALS = (RuntimeError, ValueError, AttributeError, TypeError, IndexError)
"""What transformations of a model that was not written for them raise; out of memory is told apart."""
_ENGINES = 3  # raised where an engine's speed changes, so that machines are measured again
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


def token_rows(mode: str, sources: Sequence[int], total: int, response: int, written_out: bool = False) -> int:
    """Rows of tokens that an engine carries derivatives for, through every layer.

    Forward carries one tangent per source from its place to the end; reverse one cotangent per response token
    from the place that predicts it back to the start, or, written out, to the first source. With N prompt tokens
    first and M response tokens that is N (N/2 + M) and M (N + M/2).

    Args:
        mode: ``forward`` or ``reverse``.
        sources: positions attributed to.
        total: number of ids, the response at the end.
        response: number of response tokens.
        written_out: whether the layers are written out, see :mod:`shiftlens.attribution.llama_layer`.

    Example:
        >>> token_rows("forward", range(30), 330, 300), token_rows("reverse", range(30), 330, 300)
        (9435, 53850)
    """
    if mode == "forward":
        return sum(total - 1 - source for source in sources)
    start = min(sources, default=0) if written_out else 0
    return sum(max(place - start, 0) for place in range(total - response, total))


def cheaper(costs: Costs, sources: Sequence[int], total: int, response: int, written_out: bool = False) -> str:
    """``forward`` or ``reverse``, whichever these costs make the cheaper one.

    Args:
        costs: of this machine.
        sources: positions attributed to.
        total: number of ids.
        response: number of response tokens.
        written_out: whether the layers are written out.

    Example:
        >>> cheaper(UNMEASURED, range(30), 330, 300), cheaper(UNMEASURED, range(300), 330, 30)
        ('forward', 'reverse')
    """
    forward_rows, reverse_rows = (
        token_rows(mode, sources, total, response, written_out) for mode in ("forward", "reverse")
    )
    forward_time = costs.forward_fixed + costs.forward_row * forward_rows
    reverse_time = costs.reverse_fixed + costs.reverse_row * reverse_rows
    return "forward" if forward_time <= reverse_time else "reverse"


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
            pass  # not there, or not whole: measure
        try:
            costs = _measure(model)
        except REFUSALS as error:
            log.info("the engines could not be timed: %s", error)
            return UNMEASURED
        path.write_text(json.dumps(asdict(costs)))
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
