"""Shows a progress bar with the remaining time while responses are explained."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from shiftlens.support.libraries.lightning_parts import forget_trainer


class Progress(RichProgressBar):
    """Lightning's rich progress bar: samples done, elapsed time, remaining time, samples per second.

    Args:
        description: Label of the bar.
    """

    def __init__(self, description: str = "Explaining") -> None:
        super().__init__(leave=True)
        self.description = description

    @property
    def predict_description(self) -> str:
        """Label of the bar."""
        return self.description

    def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Show no metrics beside the bar."""
        return {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drop the reference to the trainer, which would keep its model in memory while the next one loads."""
        super().teardown(trainer, pl_module, stage)
        forget_trainer(self)
