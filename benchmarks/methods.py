"""Compares the cost of the methods of attribution: ``python benchmarks/methods.py``.

All contenders use the same model (SmolLM2-135M), token ids and number of threads. Each has its own process; all
are loaded at once and run in turn (A B C A B C). Numbers are compared before times are, with ShiftLens' removal in
float64, which in turn is compared with a loop over whole texts at some tokens. Every line of :data:`CASES` is a
ratio of two contenders of one run, the median over rounds, with the bound that it is to hold; a contender whose
numbers are wrong gets no ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from attribution import QUICK_SHAPES, SHAPES, WARM_UP, Texts, real, tiny
from contender import Found, Setup, Worker
from judge import REFERENCE_TOLERANCE, differences
from report import machine
from rich.console import Console
from rich.table import Table
from serve import Task

TOLERANCE = {"float32": 1e-2, "bfloat16": 0.5}
"""Largest error of a column, relative to its largest entry, that counts as equal, per data type."""


@dataclass(frozen=True)
class Case:
    """A ratio of times and its bound.

    Args:
        contender: Name of the contender whose time is divided; for removal ``unit:way`` or ``batched:way``.
        against: Name of the contender by whose time it is divided.
        bounds: Shape -> bound; other shapes are not run.
        at_most: Whether the ratio is to be at most the bound; otherwise at least.
    """

    contender: str
    against: str
    bounds: dict[str, float]
    at_most: bool = True


CASES = (
    Case("token:zero", "gradient", {"30/300": 1.3, "64/32": 2.4, "128/64": 2.4, "20/18": 2.4}),
    Case("batched:zero", "token:zero", {"30/300": 1.0, "64/32": 1.3, "128/64": 1.3, "20/18": 1.0}, at_most=False),
    Case("word:zero", "token:zero", {"64/32": 1.0, "128/64": 1.0}),
    Case("sentence:zero", "word:zero", {"64/32": 1.0, "128/64": 1.0}),
    Case("captum_ablation", "token:neutral", {"64/32": 3.0}, at_most=False),
    Case("captum_ablation_at_once", "token:neutral", {"64/32": 1.0}, at_most=False),
    Case("inseq_occlusion", "token:neutral", {"64/32": 3.0}, at_most=False),
)

WAYS = {
    "token:zero": "zero",
    "batched:zero": "zero",
    "token:neutral": "neutral",
    "captum_ablation": "neutral",
    "captum_ablation_at_once": "neutral",
    "inseq_occlusion": "neutral",
}
"""Contenders whose numbers are compared -> way to remove a token; the peers put another token in its place."""


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        setup, texts = tiny(Path(scratch), options.threads) if options.quick else real(options)
        setup = replace(setup, device=options.device, dtype=options.dtype)
        shapes, failed = {}, []
        for shape in options.shapes:
            cases = [case for case in CASES if shape in case.bounds and _wanted(case, setup, options)]
            runs, errors = measure(cases, texts, shape, setup, options)
            lines = [judge(case, shape, runs, errors, TOLERANCE[options.dtype]) for case in cases]
            print_lines(shape, lines, errors, options)
            shapes[shape] = {"errors": errors, "lines": lines}
            failed += [
                f"{name} at {shape} by {e:.1e}" for name, e in errors.items() if e > TOLERANCE[options.dtype]
            ]
    if options.json:
        record = {"machine": machine(options.threads), "options": vars(options), "shapes": shapes}
        options.json.write_text(json.dumps(record, indent=1, default=str) + "\n")
    if failed:
        raise SystemExit(f"not equal: {', '.join(failed)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", help=f"prompt/response tokens; default {' '.join(SHAPES)}")
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose contender starts with one of these")
    parser.add_argument("--no-peers", action="store_true", help="only ShiftLens and the batched loop")
    parser.add_argument("--peers-venv", type=Path, default=Path(__file__).parent / ".venv-peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="float32", choices=TOLERANCE)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--quick", action="store_true", help="a tiny random model, no peers: numbers, not times")
    options = parser.parse_args()
    options.shapes = options.shapes or (QUICK_SHAPES if options.quick else SHAPES)
    return options


def _wanted(case: Case, setup: Setup, options: argparse.Namespace) -> bool:
    peer = case.contender.startswith(("captum", "inseq"))
    return case.contender.startswith(tuple(options.only)) and (setup.peers is not None or not peer)


def measure(
    cases: Sequence[Case], texts: Texts, shape: str, setup: Setup, options: argparse.Namespace
) -> tuple[dict[str, list[Found]], dict[str, float]]:
    """Run the contenders of some cases in turn on one text; return their runs and their largest errors."""
    task = texts(*map(int, shape.split("/")))
    names = list(dict.fromkeys(name for case in cases for name in (case.against, case.contender)))
    runs: dict[str, list[Found]] = {name: [] for name in names}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, setup)) for name in names}
        for worker in workers.values():
            worker.ready()
            worker.run(texts(*WARM_UP))
        for _ in range(options.rounds):
            for name, worker in workers.items():
                runs[name].append(worker.run(task))
    exact = {way: reference(task, way, setup) for way in {WAYS[name] for name in names if name in WAYS}}
    errors = {
        name: float(differences(*_comparable(runs[name][-1], exact[way])).max())
        for name, way in WAYS.items()
        if name in runs
    }
    return runs, errors


def reference(task: Task, way: str, setup: Setup) -> Found:
    """Return ShiftLens' removal in float64 after comparing it with whole texts at four tokens.

    Raises:
        SystemExit: They disagree.
    """
    setup = replace(setup, dtype="float32")
    some = np.linspace(0, len(task.ids) - task.response - 1, 4).round().astype(int).tolist()
    with Worker(f"exact:{way}", setup) as worker, Worker(f"exact_loop:{way}", setup) as loop:
        worker.ready(), loop.ready()
        exact, plain = worker.run(task), loop.run(replace(task, columns=some))
    doubt = float(np.abs(exact.values[some] - plain.values).max() / np.abs(plain.values).max())
    if doubt > REFERENCE_TOLERANCE:
        raise SystemExit(f"packs and whole texts differ by {doubt:.1e} in float64: no truth to compare with")
    return exact


def _comparable(found: Found, exact: Found) -> tuple[np.ndarray, np.ndarray]:
    """Return a contender's values and the exact ones in its form: Inseq gives |p(y) - p(y without)|."""
    if found.target != "absolute_probability":
        return found.values, exact.values
    assert exact.log_probability is not None
    return found.values, np.abs(-np.expm1(-exact.values) * np.exp(exact.log_probability))


def judge(
    case: Case, shape: str, runs: dict[str, list[Found]], errors: dict[str, float], tolerance: float
) -> dict[str, object]:
    """Return the ratio of a case, ``None`` if a contender's numbers are wrong, and whether it is in bounds."""
    pairs = list(zip(runs[case.contender], runs[case.against], strict=True))
    equal = max(errors.get(case.contender, 0.0), errors.get(case.against, 0.0)) <= tolerance
    ratio = statistics.median(a.seconds / b.seconds for a, b in pairs) if equal else None
    bound = case.bounds[shape]
    return {
        **asdict(case),
        "seconds": [
            statistics.median(run.seconds for run in runs[name]) for name in (case.contender, case.against)
        ],
        "processor": statistics.median(a.processor / b.processor for a, b in pairs),
        "ratio": ratio,
        "holds": ratio is not None and (ratio <= bound if case.at_most else ratio >= bound),
    }


def print_lines(shape: str, lines: Sequence[dict], errors: dict[str, float], options: argparse.Namespace) -> None:
    """Print the table of one shape."""
    columns = (
        "contender",
        "against",
        "error",
        "seconds",
        "seconds against",
        "ratio",
        "of processor",
        "bound",
        "holds",
    )
    title = f"{shape} prompt/response tokens, {options.device}, {options.dtype}, {options.threads} threads"
    caption = (
        f"medians over {options.rounds} rounds; error: worst column; of processor: ratio by processor "
        "time, which other work on the machine disturbs less"
    )
    table = Table(*columns, title=title, caption=caption)
    for line in lines:
        error = errors.get(line["contender"])
        table.add_row(
            line["contender"], line["against"], "" if error is None else f"{error:.1e}",
            *(f"{seconds:.3f}" for seconds in line["seconds"]),
            "not equal" if line["ratio"] is None else f"{line['ratio']:.2f}", f"{line['processor']:.2f}",
            f"{'<=' if line['at_most'] else '>='} {line['bounds'][shape]}", "yes" if line["holds"] else "no",
        )  # fmt: skip
    console = Console()
    Console(width=max(console.width, 130)).print(table)


if __name__ == "__main__":
    main()
