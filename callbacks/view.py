"""A further look at each model of a pair, run while the model is in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from shiftlens.evidence.analysis import Section
from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM


class View(Callback, ABC):
    """An analysis of each role beside the attributions, and the comparison of the two.

    What a model shows is kept on disk under its identity and the settings, so that a model is looked at once,
    whatever pair it is part of; the comparison needs no model.
    """

    @abstractmethod
    def missing(self, identity: Identity) -> bool:
        """Whether a model has not been looked at with these settings.

        Args:
            identity: the model.
        """

    @abstractmethod
    def look(self, lm: LM) -> None:
        """Look at a model and keep the result.

        Args:
            lm: the model, where it runs.
        """

    @abstractmethod
    def section(self, identities: Mapping[str, Identity]) -> Section:
        """Findings and tables of a pair, from what was kept.

        Args:
            identities: role -> model; each was looked at.
        """

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, on the first rank, before the samples are explained."""
        lm = cast(LM, pl_module.lm)
        if trainer.is_global_zero and self.missing(lm.identity):
            self.look(lm)
