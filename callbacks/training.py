"""The shift of a model, measured while it is tuned."""

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
from shiftlens.analyses.training.training_settings import local_view, shift_settings
from shiftlens.callbacks.base import TrainingLook
from shiftlens.errors import ConfigError
from shiftlens.models.loading import LM
from shiftlens.prompts.readers import read_prompts
from shiftlens.report import Entry, log_analysis, write_report, write_tables
from shiftlens.report.make_sinks import sink_of
from shiftlens.support.whole_files import write_parquet
from shiftlens.tuning.tuning_module import TuningModule
from shiftlens.words import lexicon_from_config


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Leave the training as it was: random numbers, modes of the layers, and which weights want a gradient.

    Args:
        module: what is trained.
    """
    modes = [(part, part.training) for part in module.modules()]
    wanted = [(weight, weight.requires_grad) for weight in module.parameters()]
    with isolate_rng(include_cuda=torch.cuda.is_available()):
        yield
    for part, mode in modes:
        part.training = mode
    for weight, wants in wanted:
        weight.requires_grad_(wants)


class ShiftCurves(TrainingLook):
    """Look at the model before the first step, every so often, and after the last; log what changed as curves.

    A look generates the responses of some held-out prompts, explains them, and takes the weights apart, all on a
    plain copy of the model that the module's ``snapshot()`` gives. The training goes on as if nobody had looked.
    Under several ranks the first one looks and the others wait.

    After each look ``tables/curves.parquet`` is written anew; at the end all tables, ``findings.json`` and
    ``report.html``. What was measured is part of the trainer's checkpoints, so that a resumed run has all of it.

    Args:
        folder: the run's folder.
        held_out: the configuration group ``data`` of the prompts that the model does not learn from.
        saliency: the configuration group ``saliency``.
        words: the configuration group ``words``.
        cache: folder of caches.
        command: what the report names as the next step; ``None`` is the comparison with the start.
        **settings: of :class:`~shiftlens.analyses.training.training_settings.ShiftSettings`.

    Raises:
        ConfigError: lists every setting that cannot be used.
        PromptError: faults of the held-out prompts, all at once.
    """

    def __init__(
        self,
        folder: str | Path,
        held_out: Mapping[str, Any],
        saliency: Mapping[str, Any] | None = None,
        words: Mapping[str, Any] | None = None,
        cache: str | Path = "~/.cache/shiftlens",
        command: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        if command is not None:
            self.command = command
        self.console = Console()
        chosen = shift_settings(settings)
        self._held_out = dict(held_out)
        lexicon = None
        if chosen.rotation != "off" or chosen.pairs != "off":
            lexicon = lexicon_from_config(words or {}, cache)
        self.looks = Looks(chosen, *local_view(saliency or {}), lexicon)
        self._every = chosen.every
        self._seen: int | None = None
        self._module: TuningModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read and encode the prompts, and refuse what cannot be measured, before any work.

        Raises:
            ConfigError: the model is cut over several devices, or has no such layers.
        """
        if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy)):
            raise ConfigError(
                "callbacks=shift looks at a whole model, and trainer=fsdp cuts it into parts: use trainer=ddp "
                "where the model fits one device, or callbacks=none and compare afterwards with analyze.py"
            )
        self._module = cast(TuningModule, pl_module)
        if not self.sinks:
            self.sinks = [sink_of("trainer", logger) for logger in trainer.loggers]
        lm = self._module.lm_source
        limits = {key: self._held_out.get(key, usual) for key, usual in _USUAL.items()}
        with undisturbed(pl_module):
            self.looks.prepare(lm, read_prompts(self._held_out), limits["max_new_tokens"], limits["on_long"])
        if not self.command:
            self.command = (
                f"python analyze.py model.base={lm.identity.source!r} model.tuned={self.folder / 'tuned'}"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first look; a resumed run has had it."""
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
        """A look after each ``every``-th optimizer step; not between two micro-batches of one."""
        step, every = trainer.global_step, self._every
        if every is None or step == 0 or step % every or self._seen == step:
            return
        self._seen = step
        if step not in self.looks.found.steps:
            self._look(trainer, pl_module)
        trainer.strategy.barrier("shift")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last look, the held-out prompts, the tests, and the report."""
        self._look(trainer, pl_module, last=True)
        trainer.strategy.barrier("shift")

    def conclude(self, lm: LM, step: int) -> None:
        """Say what came of the run, of weights other than the last ones too.

        Args:
            lm: the model that is kept, plain and frozen; only the first rank may call this.
            step: the step that its weights are of.
        """
        if self.looks.found.concluded != step:
            self._measure(lm, step, last=True)

    def record(self) -> dict[str, Any]:
        """What was found, for the record of the run: rates with intervals, findings, times."""
        return self.looks.record()

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far, as plain values and tensors."""
        return self.looks.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was measured before."""
        self.looks.take_up(state_dict)

    def _look(self, trainer: Trainer, module: LightningModule, last: bool = False) -> None:
        if not trainer.is_global_zero:
            return
        with undisturbed(module):
            self._measure(cast(TuningModule, module).snapshot(), trainer.global_step, last)

    def _measure(self, lm: LM, step: int, last: bool) -> None:
        started, found = time.monotonic(), self.looks.found
        # A module other than TuningModule needs lm_source and snapshot() alone; it may keep no losses.
        history = getattr(self._module, "history", [])
        found.losses = [(int(at), str(name), float(value)) for at, name, value in history]
        again = last and step in found.steps
        values = self.looks.look(lm, step, last)
        for sink in self.sinks:
            sink.log(Entry(scalars=values), step)
        seconds = f"{time.monotonic() - started:.0f} s"
        lines = [] if again else [found.tell(step)]
        if last:
            lines.append(found.tell_change())
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


_USUAL: Mapping[str, Any] = {"max_new_tokens": 32, "on_long": "refuse"}
