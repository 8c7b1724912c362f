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

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from transformers import PreTrainedModel

from shiftlens.attribution.forward import forward
from shiftlens.attribution.llama_layer import takes
from shiftlens.attribution.llama_rows import COUNT
from shiftlens.attribution.memory import MOST
from shiftlens.attribution.reverse import reverse
from shiftlens.models.identity import digest

log = logging.getLogger(__name__)
Rows = NDArray[np.int64]

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


def carried(sources: Sequence[int], total: int, response: int) -> tuple[Rows, Rows]:
    """Rows of tokens that every cut leaves to tangents, and to cotangents; each passes through every layer.

    One tangent per source ahead of the cut, from its place up to there; one cotangent per response token that
    is predicted at the cut or behind, from that place back to there.

    Args:
        sources: positions attributed to.
        total: number of ids, the response at the end.
        response: number of response tokens.

    Returns:
        [total] each, for cuts from 0 to total - 1.

    Example:
        >>> carried([0, 2], 5, 2)
        (array([0, 1, 2, 4, 6]), array([7, 5, 3, 1, 0]))
    """
    # A cut one place further on costs a row for each source ahead of it, and spares one for each token behind.
    places = range(total - response, total)  # behind the one that predicts
    behind = response - _ahead(places, total + 1)[1:]
    return _ahead(sources, total).cumsum(), behind[::-1].cumsum()[::-1]


def _ahead(places: Sequence[int] | Rows, total: int, each: Rows | None = None) -> Rows:
    """[total] how many of some places lie ahead of each position, or the sum of a number that each has."""
    sums = np.bincount(np.asarray(places, dtype=np.int64), each, minlength=total)[: total - 1]
    return np.concatenate([[0], sums.cumsum()]).astype(np.int64)


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
        return int(carried(sources, total, response)[0][-1])
    return int(carried(sources, total, response)[1][min(sources, default=0) if written_out else 0])


def crossing_rows(sources: Sequence[int], total: int, together: int) -> Rows:
    """Rows of keys and of values whose tangents are kept at every cut, those of a part from its first source on.

    Args:
        sources: positions attributed to.
        total: number of ids.
        together: most tangents in a part.

    Returns:
        [total] for cuts from 0 to total - 1.

    Example:
        >>> crossing_rows([0, 1, 5], 8, 2)
        array([ 0,  1,  4,  6,  8, 10, 13, 16])
    """
    ordered = np.sort(np.asarray(sources, dtype=np.int64))
    first = ordered[np.arange(len(ordered)) // together * together]
    return np.arange(total) * _ahead(ordered, total) - _ahead(ordered, total, first)


def best_cut(
    costs: Costs,
    sources: Sequence[int],
    total: int,
    response: int,
    written_out: bool = False,
    room: float = np.inf,
) -> tuple[int, float]:
    """Where tangents and cotangents meet at the least cost, and that cost.

    Args:
        costs: of this machine.
        sources: positions attributed to.
        total: number of ids.
        response: number of response tokens.
        written_out: whether the layers are written out.
        room: most rows of keys and values that may be kept, see :func:`crossing_rows`.

    Example:
        >>> best_cut(UNMEASURED, range(128), 192, 64)  # about as many positions as there are response tokens
        (63, 8192.0)
    """
    ahead, behind = carried(sources, total, response)
    time = costs.forward_row * ahead + costs.reverse_row * behind
    time += costs.forward_fixed * (ahead > 0) + costs.reverse_fixed * (behind > 0)
    kept = crossing_rows(sources, total, COUNT if written_out else max(MOST.values()))
    time[(behind > 0) & (kept > room)] = np.inf
    start = min(sources, default=0)  # a cut further ahead would carry rows that nobody wants
    cut = start + int(time[start:].argmin())
    return cut, float(time[cut])


def cheapest(
    costs: Costs,
    sources: Sequence[int],
    total: int,
    response: int,
    written_out: bool = False,
    room: float = np.inf,
) -> str:
    """``forward``, ``reverse`` or ``mixed``, whichever these costs make the cheapest.

    Args:
        costs: of this machine.
        sources: positions attributed to.
        total: number of ids.
        response: number of response tokens.
        written_out: whether the layers are written out.
        room: as in :func:`best_cut`, for ``mixed``.

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
        "mixed": best_cut(costs, sources, total, response, written_out, room)[1],
    }
    return min(times, key=times.__getitem__)  # of equals the first: a cut at an end is one of the pure modes


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
