"""Times the stages of the whole pipeline on prompts of the paper: ``python benchmarks/pipeline.py``.

Both roles of the bundled pair are run. A setting is a string of overrides of ``python analyze.py``; the settings
run in the order given, ``--rounds`` times, each from an empty ledger. By default, the normal pipeline is compared
with one that takes prompts one by one and makes one backward pass per response token.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from contender import HERE
from hydra import compose, initialize_config_module
from report import machine
from rich.console import Console
from rich.table import Table

import shiftlens.attribution.explain_module
import shiftlens.report
import shiftlens.run.pipeline
import shiftlens.run.runner
from shiftlens.attribution import Engine
from shiftlens.cli.analyze_command import resolved
from shiftlens.cli.analyze_options import options_from_config
from shiftlens.models.pair import pair_from_config
from shiftlens.prompts.readers import read_prompts

PROMPTS = HERE.parents[1] / "shared" / "reference" / "vicuna_7b.parquet"
SETTINGS = ["saliency.mode=auto", "saliency.mode=naive saliency.batch_tokens=1"]
STAGES: dict[str, list[tuple[Any, str]]] = {
    "prepare": [(shiftlens.run.pipeline, "prepare")],
    "load": [(shiftlens.run.runner, "load_lm"), (shiftlens.run.runner, "calibrated")],
    "generate": [(shiftlens.attribution.explain_module, "greedy")],
    "attribute": [(Engine, "explain")],
    "report": [(shiftlens.report, "write_tables"), (shiftlens.report, "write_report")],
}
"""Functions that are timed as a stage; none calls another. The rest of the time is ledger, scores and tests."""
REST = "ledger, scores, tests"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, default=PROMPTS, help="prompts, a Parquet file")
    parser.add_argument("--prompts", type=int, default=40, help="the first K of the file")
    parser.add_argument("--tokens", type=int, default=100, help="longest response")
    parser.add_argument("--settings", nargs="+", default=SETTINGS, help="each a quoted string of overrides")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = ["logger=none", "data=parquet", f"data.path={options.path}", f"data.max_new_tokens={options.tokens}"]
    once([*data, "data.limit=1"])  # fills the caches: hashes of weights, calibration, pages of files
    times: list[list[dict[str, float]]] = [[] for _ in options.settings]
    for _ in range(options.rounds):
        for setting, runs in zip(options.settings, times, strict=True):
            runs.append(once([*data, f"data.limit={options.prompts}", *setting.split()]))
    samples = 2 * options.prompts
    show(options.settings, times, samples, options.threads)
    if options.json:
        record = {"machine": machine(options.threads), "samples": samples, "tokens": options.tokens}
        record["seconds"] = dict(zip(options.settings, times, strict=True))
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def once(overrides: Sequence[str]) -> dict[str, float]:
    """Run the pipeline once from an empty ledger and return the seconds per stage."""
    with initialize_config_module("shiftlens.conf", version_base="1.3"):
        config = resolved(compose("analyze", overrides=list(overrides)))
    seconds = dict.fromkeys([*STAGES, REST], 0.0)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        for stage, functions in STAGES.items():
            for owner, name in functions:
                stack.enter_context(timed(owner, name, stage, seconds))
        start = time.perf_counter()
        pair = pair_from_config(config["model"], config["paths"]["cache"])
        prompts, settings = read_prompts(config["data"]), options_from_config(config)
        folder = Path(scratch)
        analysis = shiftlens.run.pipeline.run(
            pair, prompts, settings, folder / "ledger", config["trainer"], [], Console(quiet=True)
        )
        assert analysis is not None
        shiftlens.report.write_tables(analysis, folder)
        shiftlens.report.write_report(analysis, folder / "report.html")
        whole = time.perf_counter() - start
    seconds[REST] = whole - sum(seconds.values())
    return seconds


@contextmanager
def timed(owner: Any, name: str, stage: str, seconds: dict[str, float]) -> Iterator[None]:
    """Add the time of every call of the function ``owner.name`` to ``seconds[stage]``, within a ``with`` block."""
    inner = getattr(owner, name)

    def outer(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            seconds[stage] += time.perf_counter() - start

    with patch.object(owner, name, outer):
        yield


def show(settings: Sequence[str], times: Sequence[Sequence[dict[str, float]]], samples: int, threads: int) -> None:
    """Print samples per minute and the share of each stage, as medians over rounds."""
    table = Table(
        "setting", "seconds", "samples/min", *STAGES, REST, title=f"{samples} samples, {threads} threads"
    )
    for setting, runs in zip(settings, times, strict=True):
        whole = statistics.median(sum(run.values()) for run in runs)
        shares = (statistics.median(run[stage] / sum(run.values()) for run in runs) for stage in (*STAGES, REST))
        row = [setting, f"{whole:.1f}", f"{60 * samples / whole:.1f}", *(f"{share:.0%}" for share in shares)]
        table.add_row(*row)
    console = Console()
    Console(width=max(console.width, 130)).print(table)


if __name__ == "__main__":
    main()
