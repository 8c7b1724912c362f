"""A callback that kills its own process, as a machine that goes down would."""

from __future__ import annotations

import os
import signal

from lightning.pytorch import Callback


class Killer(Callback):
    """SIGKILL in the middle of the batch after some steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_zero_grad(self, trainer, pl_module, optimizer) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)
