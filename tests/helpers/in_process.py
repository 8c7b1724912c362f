"""The whole analysis without a process of its own: configuration, pipeline, tables."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_module
from rich.console import Console

from shiftlens.cli.analyze_command import resolved
from shiftlens.cli.analyze_options import options_from_config
from shiftlens.models.pair import pair_from_config
from shiftlens.prompts.readers import read_prompts
from shiftlens.results.analysis import Analysis
from shiftlens.run.pipeline import run

RECORDS: list[dict[str, Any]] = [
    {"id": "one", "text": "Fix the grammar: me and him goes", "instruction": [[0, 16]], "context": [[17, 32]]},
    {"id": "two", "text": "Write the words in order, please: b a c", "instruction": [[0, 32]]},
    {"id": "three", "text": "Translate this to French: the words", "instruction": [[0, 24]], "rating": 4},
]


def analyze(
    folder: Path, pair: tuple[Path, Path] | None, *words: str, records: Sequence[dict[str, Any]] = RECORDS
) -> tuple[Analysis, str]:
    """What `python analyze.py WORDS` finds about a pair, and what it tells the user; None: the bundled pair."""
    models = [f"model.base={pair[0]}", f"model.tuned={pair[1]}", f"paths.cache={folder / 'cache'}"] if pair else []
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, records)))
    with initialize_config_module("shiftlens.conf", version_base="1.3"):
        config = resolved(
            compose(
                "analyze",
                [
                    *models, "data=jsonl",
                    f"data.path={folder / 'prompts.jsonl'}", f"paths.ledger={folder / 'ledger'}",
                    "saliency.b=0", "saliency.mode=reverse",
                    "data.max_new_tokens=6", "logger=none", "~callbacks.progress", *words,
                ],
            )
        )  # fmt: skip
    told = io.StringIO()
    analysis = run(
        pair_from_config(config["model"], config["paths"]["cache"]),
        read_prompts(config["data"]),
        options_from_config(config),
        Path(config["paths"]["ledger"]),
        config["trainer"],
        [hydra.utils.instantiate(node) for node in (config["callbacks"] or {}).values()],
        Console(file=told, width=200),
    )
    assert analysis is not None
    return analysis, told.getvalue()
