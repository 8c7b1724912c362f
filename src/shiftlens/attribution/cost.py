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
from transformers import PreTrainedModel

from shiftlens.attribution.forward import forward
from shiftlens.attribution.llama_layer import takes
from shiftlens.attribution.llama_rows import COUNT
from shiftlens.attribution.memory import MOST
from shiftlens.attribution.reverse import reverse
from shiftlens.models.identity import digest

log = logging.getLogger(__name__)
Cuts = Sequence[int] | np.ndarray

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


def carried(sources: Sequence[int], total: int, response: int, cuts: Cuts) -> tuple[np.ndarray, np.ndarray]:
    """Rows of tokens that a cut leaves to tangents, and to cotangents; each passes through every layer.

    One tangent per source ahead of the cut, from its place up to there; one cotangent per response token that
    is predicted at the cut or behind, from that place back to there.

    Args:
        sources: positions attributed to.
        total: number of ids, the response at the end.
        response: number of response tokens.
        cuts: positions, each 0 to total - 1.

    Example:
        >>> carried(range(30), 330, 300, [0, 300, 329])
        (array([   0, 8565, 9435]), array([53850,   435,     0]))
    """
    at = np.asarray(cuts)[:, None]
    places = np.arange(total - response, total)  # behind the one that predicts
    return np.maximum(at - np.asarray(sources, dtype=int), 0).sum(-1), np.maximum(places - at, 0).sum(-1)


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
        return int(carried(sources, total, response, [total - 1])[0].item())
    return int(carried(sources, total, response, [min(sources, default=0) if written_out else 0])[1].item())


def crossing_rows(sources: Sequence[int], cuts: Cuts, together: int) -> np.ndarray:
    """Rows of keys and of values whose tangents are kept at a cut, those of a part from its first source on.

    Args:
        sources: positions attributed to.
        cuts: positions.
        together: most tangents in a part.

    Example:
        >>> crossing_rows([0, 1, 5], [6], 2)
        array([13])
    """
    ordered, at = np.sort(np.asarray(sources, dtype=int)), np.asarray(cuts)[:, None]
    first = ordered[np.arange(len(ordered)) // together * together]
    return np.where(ordered < at, at - first, 0).sum(-1)


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
    cuts = np.arange(min(sources, default=0), total)
    ahead, behind = carried(sources, total, response, cuts)
    time = costs.forward_row * ahead + costs.reverse_row * behind
    time += costs.forward_fixed * (ahead > 0) + costs.reverse_fixed * (behind > 0)
    kept = crossing_rows(sources, cuts, COUNT if written_out else max(MOST.values()))
    time[(behind > 0) & (kept > room)] = np.inf
    return int(cuts[time.argmin()]), float(time.min())


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
