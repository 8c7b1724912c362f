"""A tiny model tuned while its shift is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from rich.console import Console

import shiftlens as sl
from helpers.plain_shift import B, L, P
from shiftlens.analyses.training import findings as training
from shiftlens.callbacks import ShiftCurves
from shiftlens.models.loading import LM
from shiftlens.scores.settings import Settings
from shiftlens.tuning.examples import Example
from shiftlens.tuning.fit import fit
from shiftlens.tuning.tune_options import TuneOptions

RECORDS = [
    {"id": "order", "text": "Write the words in order: b a", "instruction": [[0, 24]], "context": [[26, 29]], "check": {"name": "contains", "text": "a"}},
    {"id": "grammar", "text": "Fix the grammar: me goes", "instruction": [[0, 15]], "context": [[17, 24]], "check": {"name": "words", "least": 0, "most": 99}},
    {"id": "shout", "text": "Shout, please", "instruction": [[0, 5]], "check": {"name": "uppercase"}},
    {"id": "hostile", "text": "Say </script><img src=x onerror=alert(1)>", "instruction": [[0, 3]], "check": {"name": "all", "checks": [{"name": "lowercase"}, {"name": "without", "text": "e"}]}},
    {"id": "unchecked", "text": "Translate this to French", "instruction": [[0, 24]]},
]  # fmt: skip
TUNING = TuneOptions(
    steps=4, batch=4, accumulate=2, rank=2, dropout=0.1, rate=0.02, validate_every=2, keep="last", seed=3
)
CPU = {"accelerator": "cpu", "devices": 1}


def callback(folder, held_out, words, **settings) -> ShiftCurves:
    usual = {"every": 2, "components": 6, "top_words": 5, "top": 10, "examples": 5}
    made = ShiftCurves(
        folder, held_out, {"L": L, "b": B, "p": P}, words, folder / "cache", **{**usual, **settings}
    )
    made.console = Console(quiet=True)
    return made


def dialogues(lm: LM) -> list[Example]:
    draw = torch.Generator().manual_seed(1)
    return [Example(tuple(torch.randint(3, 300, (n,), generator=draw).tolist()), 3) for n in (7, 9, 8, 12, 10, 6, 11, 9)]  # fmt: skip


def tune(pair, folder, callbacks, loggers=(), ckpt_path=None) -> LM:
    lm = sl.load(str(pair[0]))
    some = dialogues(lm)
    fit(lm, some, some[:3], TUNING, folder, CPU, callbacks, loggers, None, ckpt_path)
    return lm


@contextmanager
def few_settings() -> Iterator[None]:
    """The correction over all settings is tested elsewhere, and costs seconds."""
    with pytest.MonkeyPatch.context() as patch:
        few = partial(training.examine, settings=[Settings(L, B, P)], permutations=99)
        patch.setattr(training, "examine", few)
        yield


def tuned_run(pair, folder: Path, held_out, words) -> SimpleNamespace:
    """A tuning with looks at steps 0, 2 and 4, logged to CSV and an offline W&B run."""
    import wandb

    loggers = [
        CSVLogger(folder, "csv"),
        WandbLogger(
            project="t", save_dir=str(folder), mode="offline", settings=wandb.Settings(x_disable_stats=True)
        ),
    ]
    shift = callback(folder, held_out, words)
    told = shift.console = Console(record=True, width=400, file=open("/dev/null", "w"))  # noqa: SIM115
    lm = tune(pair, folder, [shift], loggers)
    run_dir = Path(loggers[1].experiment.dir).parent
    wandb.finish()
    return SimpleNamespace(
        folder=folder, shift=shift, lm=lm, csv=loggers[0], wandb=run_dir, told=told.export_text()
    )


def values_at(run, step: int) -> dict[str, float]:
    table = pd.read_parquet(run.folder / "tables" / "curves.parquet")
    rows = table[(table["step"] == step) & (table["measure"] != "loss")]
    return {
        m if g == "all" else f"{m}/{g}": v
        for m, g, v in zip(rows["measure"], rows["group"], rows["value"], strict=True)
    }


def merged(lm):
    import copy

    return copy.deepcopy(lm.model).merge_and_unload().eval()
