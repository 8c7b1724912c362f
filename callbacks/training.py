"""Measures the shift of a model while it is tuned."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from rich.console import Console
from torch import nn

from shiftlens.analyses.training.looks import Looks
from shiftlens.analyses.training.section import training_analysis
from shiftlens.analyses.training.training_settings import shift_settings
from shiftlens.callbacks.base import TrainingLook
from shiftlens.errors import ConfigError
from shiftlens.models.loading import LM
from shiftlens.prompts.readers import read_prompts
from shiftlens.report import Entry, log_analysis, write_report, write_tables
from shiftlens.report.make_sinks import sink_of
from shiftlens.scores.saliency_options import saliency_options
from shiftlens.support.cache_path import cache_dir
from shiftlens.support.conf_files import with_defaults
from shiftlens.support.whole_files import write_parquet
from shiftlens.tuning.tuning_module import TuningModule
from shiftlens.words import lexicon_from_config


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Restore the state of the training afterwards.

    Restored are the random number generators, the modules' training modes, and which weights require a gradient.

    Args:
        module: Module under training.
    """
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    flags = [(weight, weight.requires_grad) for weight in module.parameters()]
    with isolate_rng(include_cuda=torch.cuda.is_available()):
        yield
    for submodule, mode in modes:
        submodule.training = mode
    for weight, requires_grad in flags:
        weight.requires_grad_(requires_grad)


class ShiftCurves(TrainingLook):
    """Measures the model before the first step, at regular steps, and after the last; logs the changes as curves.

    A measurement generates responses to held-out prompts, explains them, and analyzes the weights, all on a
    LoRA-free copy of the model (``TuningModule.snapshot()``). The measurements do not change the training. With
    several ranks, the first one measures and the others wait.

    Each measurement rewrites ``tables/curves.parquet``; the last one writes all tables, ``findings.json`` and
    ``report.html``. The trainer's checkpoints contain the measurements, so a resumed run has all of them.

    Args:
        folder: Folder of the run.
        held_out: Configuration group ``data`` of the prompts that the model does not learn from.
        saliency: Configuration group ``saliency``.
        words: Configuration group ``words``.
        cache: Folder of caches; ``None`` is :func:`shiftlens.support.cache_path.cache_dir`.
        command: Command that the report gives as the next step; ``None`` compares the starting and tuned models.
        **settings: Settings of :class:`~shiftlens.analyses.training.training_settings.ShiftSettings`.

    Raises:
        ConfigError: Some settings have invalid values; the message lists all of them.
        PromptError: Some held-out prompts have faults; the message lists all of them.
    """

    def __init__(
        self,
        folder: str | Path,
        held_out: Mapping[str, Any],
        saliency: Mapping[str, Any] | None = None,
        words: Mapping[str, Any] | None = None,
        cache: str | Path | None = None,
        command: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        if command is not None:
            self.command = command
        self.console = Console()
        chosen = shift_settings(settings)
        self._held_out = with_defaults("data/shared", "prompts", held_out)
        lexicon = None
        if chosen.rotation != "off" or chosen.pairs != "off":
            lexicon = lexicon_from_config(words or {}, cache or cache_dir())
        options = saliency_options(saliency or {})
        self.looks = Looks(chosen, options.settings, options.engine, options.batch_tokens, lexicon)
        self._every = chosen.every
        self._seen: int | None = None
        self._module: TuningModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read and encode the held-out prompts, and check that the model can be measured, before the training.

        Raises:
            ConfigError: The model is split over several devices, or does not have the layers in the settings.
        """
        if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy)):
            raise ConfigError(
                "callbacks=shift looks at a whole model, and trainer=fsdp cuts it into parts: use trainer=ddp "
                "where the model fits one device, or callbacks=none and compare afterwards with analyze.py"
            )
        self._module = cast(TuningModule, pl_module)
        if not self.sinks:
            self.sinks = [sink_of("trainer", logger) for logger in trainer.loggers]
        lm, data = self._module.lm_source, self._held_out
        with undisturbed(pl_module):
            self.looks.prepare(lm, read_prompts(data), data["max_new_tokens"], data["on_long"])
        if not self.command:
            self.command = (
                f"python analyze.py model.base={lm.identity.source!r} model.tuned={self.folder / 'tuned'}"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the first measurement, unless a resumed run already has it."""
        if self._every is None:
            steps = trainer.estimated_stepping_batches
            if steps == float("inf"):
                raise ConfigError(
                    "callbacks.shift.every=null: the run has no end to take a quarter of; set a number"
                )
            self._every = max(1, round(int(steps) / 4))
        if not self.looks.found.steps:
            self._look(trainer, pl_module)
        trainer.strategy.barrier("shift")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take a measurement after each ``every``-th optimizer step, once per step whatever its micro-batches."""
        step, every = trainer.global_step, self._every
        if every is None or step == 0 or step % every or self._seen == step:
            return
        self._seen = step
        if step not in self.looks.found.steps:
            self._look(trainer, pl_module)
        trainer.strategy.barrier("shift")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the last measurement, run the tests on the held-out prompts, and write the report."""
        self._look(trainer, pl_module, last=True)
        trainer.strategy.barrier("shift")

    def conclude(self, lm: LM, step: int) -> None:
        """Measure the weights that are kept, unless they are the last ones, and rewrite the report for them.

        Only the first rank may call this.

        Args:
            lm: The model that is kept, frozen and without LoRA modules.
            step: Optimizer step after which the model had these weights.
        """
        if self.looks.found.concluded != step:
            self._measure(lm, step, last=True)

    def record(self) -> dict[str, Any]:
        """Return rates with intervals, findings, and times, for ``record.json``."""
        return self.looks.record()

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements so far, as plain values and tensors."""
        return self.looks.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the measurements of an earlier run."""
        self.looks.take_up(state_dict)

    def _look(self, trainer: Trainer, module: LightningModule, last: bool = False) -> None:
        if not trainer.is_global_zero:
            return
        with undisturbed(module):
            self._measure(cast(TuningModule, module).snapshot(), trainer.global_step, last)

    def _measure(self, lm: LM, step: int, last: bool) -> None:
        started, measured = time.monotonic(), self.looks.found
        # A module other than TuningModule needs lm_source and snapshot() alone; it may keep no losses.
        history = getattr(self._module, "history", [])
        measured.losses = [(int(at), str(name), float(value)) for at, name, value in history]
        again = last and step in measured.steps
        values = self.looks.look(lm, step, last)
        for sink in self.sinks:
            sink.log(Entry(scalars=values), step)
        seconds = f"{time.monotonic() - started:.0f} s"
        lines = [] if again else [measured.tell(step)]
        if last:
            lines.append(measured.tell_change())
        for number, line in enumerate(lines, start=1):
            end = f"; {seconds}" if number == len(lines) else ""
            self.console.print(f"  {line}{end}", soft_wrap=True, highlight=False)
        if not last:
            write_parquet(self.folder / "tables" / "curves.parquet", self.looks.found.curves())
            return
        analysis = training_analysis(self.looks.result(), self.command, self.looks.settings.examples)
        write_tables(analysis, self.folder)
        report = write_report(analysis, self.folder / "report.html")
        self.console.print(f"  {report}", soft_wrap=True, highlight=False)
        log_analysis(analysis, self.sinks, report, int(self.looks.found.curves()["step"].max()))
