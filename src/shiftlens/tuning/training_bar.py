"""Shows the progress of a training run: steps, loss, and time left."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shiftlens.tuning.tuning_module import HELD_OUT, LOSS, TuningModule


class TuneProgress(Callback):
    """Shows a bar with the loss and the time left, and prints a line for each held-out loss.

    Args:
        console: Console to print to; the bar appears only if it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None
        self._started = (0, 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and, on a terminal, show the bar."""
        assert isinstance(pl_module, TuningModule)
        self._started = (trainer.global_step, time.monotonic())
        if not self.console.is_terminal or self.console.quiet:
            return  # a bar is unreadable in a file; the lines of `on_validation_end` say the same
        self._bar = Progress(
            TextColumn("Tuning"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(), console=self.console, transient=True,
        )  # fmt: skip
        self._bar.add_task("", total=len(pl_module.steps), completed=trainer.global_step, status="")
        self._bar.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the held-out loss before the first step of a new run."""
        assert isinstance(pl_module, TuningModule)
        if trainer.global_step == 0 and pl_module.history:
            self.console.print(f"  step 0/{len(pl_module.steps)}: held-out loss {pl_module.history[-1][2]:.4f}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar with the latest loss and the time left."""
        assert isinstance(pl_module, TuningModule)
        if self._bar is None or not pl_module.history:
            return
        _, name, value = pl_module.history[-1]
        status = f"loss {value:.3f}  {self._left(trainer, pl_module)}" if name == LOSS else ""
        self._bar.update(self._bar.task_ids[0], completed=trainer.global_step, status=status)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the held-out loss and the mean training loss since the previous held-out loss."""
        assert isinstance(pl_module, TuningModule)
        losses = [value for _, name, value in pl_module.history if name == LOSS][
            -pl_module.options.validate_every :
        ]
        held_out = [value for _, name, value in pl_module.history if name == HELD_OUT][-1]
        mean = f"loss {sum(losses) / len(losses):.4f}, " if losses else ""
        self.console.print(
            f"  step {trainer.global_step}/{len(pl_module.steps)}: {mean}held-out loss {held_out:.4f}; "
            f"{self._left(trainer, pl_module)}"
        )

    def _left(self, trainer: Trainer, module: TuningModule) -> str:
        """Return the estimated time left, as ``M:SS left``, from the mean time per step since the start."""
        step, began = self._started
        done = trainer.global_step - step
        left = (time.monotonic() - began) / max(done, 1) * (len(module.steps) - trainer.global_step)
        return f"{int(left) // 60}:{int(left) % 60:02d} left"

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the bar, so that the error message is readable."""
        self._stop()
