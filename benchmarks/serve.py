"""The worker's side of the benchmark: one contender, one process, JSON lines in and out.

Imports nothing that only one of the environments has.
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
    """One text to explain: N prompt tokens from position 0 on, then M response tokens.

    Args:
        ids: [N + M] token ids.
        response: M.
        prompt: the first N ids as text, or empty where the ids have none.
        completion: the others as text, likewise.
        columns: for ``exact``: explain only these response tokens, by the plain loop.
    """

    ids: list[int]
    response: int
    prompt: str = ""
    completion: str = ""
    columns: list[int] | None = None


class Answer(NamedTuple):
    """What a contender found.

    Args:
        values: [N, columns] ``<d f(y_m) / d E[x_n], E[x_n]>``.
        target: f, ``probability`` or ``log_probability``.
        mode: the way it took, a key of :data:`flops.WAYS`.
        log_probability: [columns] log p(y_m), where the contender tells it.
    """

    values: torch.Tensor
    target: str
    mode: str
    log_probability: torch.Tensor | None = None


Contender = Callable[[Task], Answer]


def serve(make: Callable[[argparse.Namespace], tuple[Contender, str]]) -> None:
    """Make the contender that the command line names, then answer tasks until standard input ends.

    Args:
        make: gives the contender and its name with version; loading happens here and is not timed.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("contender")
    parser.add_argument("--model", required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    # Libraries print; their lines must not mix with ours.
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
            start = time.perf_counter()
            answer = contender(Task(**request))
            seconds = time.perf_counter() - start
        except Exception as error:  # told to the other side, which stops
            say(error=f"{type(error).__name__}: {error}")
            continue
        arrays = {"values": answer.values.detach().numpy()}
        if answer.log_probability is not None:
            arrays["log_probability"] = answer.log_probability.detach().numpy()
        np.savez(out, **arrays)
        if not loaded:  # weights are read from disk when they are first used
            loaded = _memory("VmRSS")
            _forget_peak()
        say(seconds=seconds, target=answer.target, mode=answer.mode, peak=_memory("VmHWM"), loaded=loaded)


def _memory(field: str) -> int:
    """Bytes of resident memory: VmRSS now, VmHWM at most. Not ru_maxrss, which starts at the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")
