"""Runs one contender in a worker process that reads tasks and writes answers as JSON lines.

Imports only what both environments, ShiftLens' and the peers', contain.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch


@dataclass(frozen=True)
class Task:
    """One text to explain: N prompt tokens from position 0, then M response tokens.

    Args:
        ids: [N + M] Token ids.
        response: M, the number of response tokens.
        prompt: Text of the first N ids; empty if the ids are random.
        completion: Text of the last M ids; empty if the ids are random.
        columns: For ``exact`` only: numbers of the response tokens to explain by the plain loop.
    """

    ids: list[int]
    response: int
    prompt: str = ""
    completion: str = ""
    columns: list[int] | None = None


class Answer(NamedTuple):
    """Attribution that a contender computed.

    Args:
        values: [N, columns] ``<d f(y_m) / d E[x_n], E[x_n]>``.
        target: f, ``probability`` or ``log_probability``.
        mode: Way in which the values were computed, one of :data:`flops.WAYS`.
        log_probability: [columns] log p(y_m); ``None`` if the contender does not give it.
    """

    values: torch.Tensor
    target: str
    mode: str
    log_probability: torch.Tensor | None = None


Contender = Callable[[Task], Answer]


def serve(make: Callable[[argparse.Namespace], tuple[Contender, str]]) -> None:
    """Load the contender that the command line names, then answer tasks until standard input ends.

    Args:
        make: Function from the options to the contender and its name with version. It loads the model; its time is
            not measured.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("contender")
    parser.add_argument("--model", required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    # Answers use a copy of standard output; what libraries print goes to standard error, so the two do not mix.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(options.threads)

    def say(**record: Any) -> None:
        channel.write(json.dumps(record) + "\n")

    contender, title = make(options)
    say(title=title)
    loaded = 0
    for line in sys.stdin:
        request = json.loads(line)
        out = Path(request.pop("out"))
        try:
            start, of_processor = time.perf_counter(), time.process_time()
            answer = contender(Task(**request))
            seconds, processor = time.perf_counter() - start, time.process_time() - of_processor
        except Exception as error:  # reported to the benchmark, which exits with the message
            say(error=f"{type(error).__name__}: {error}")
            continue
        arrays = {"values": answer.values.detach().numpy()}
        if answer.log_probability is not None:
            arrays["log_probability"] = answer.log_probability.detach().numpy()
        np.savez(out, **arrays)
        if not loaded:  # after the first task only: weights are read from disk when they are first used
            loaded = _memory("VmRSS")
            _forget_peak()
        say(
            seconds=seconds,
            processor=processor,
            target=answer.target,
            mode=answer.mode,
            peak=_memory("VmHWM"),
            loaded=loaded,
        )


def _memory(field: str) -> int:
    """Return the resident memory of this process in bytes: ``VmRSS`` is the current, ``VmHWM`` the peak value.

    ``ru_maxrss`` cannot be used, as it starts at the value of the parent process.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _forget_peak() -> None:
    """Reset the peak resident memory (``VmHWM``) to the current value."""
    Path("/proc/self/clear_refs").write_text("5")
