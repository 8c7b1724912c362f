"""A progress bar with time left."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from shiftlens.support.libraries.lightning_parts import forget_trainer


class Progress(RichProgressBar):
    """Lightning's rich bar: samples done, time gone, time left, samples per second.

    Args:
        description: what the bar counts.
    """

    def __init__(self, description: str = "Explaining") -> None:
        super().__init__(leave=True)
        self.description = description

    @property
    def predict_description(self) -> str:
        """The bar's label."""
        return self.description

    def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """No metrics beside the bar."""
        return {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the run: the bar would keep its model in memory while the next one loads."""
        super().teardown(trainer, pl_module, stage)
        forget_trainer(self)
