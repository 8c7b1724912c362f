"""Base classes of analyses that a run carries out beside the importance scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from shiftlens.attribution import Request
from shiftlens.attribution.role import Role, Rows
from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM
from shiftlens.report.sink import Sink
from shiftlens.results.section import Section


class View(Callback, ABC):
    """An analysis of each role beside the attributions, and the comparison of the two.

    The results of a model are kept on disk under its identity and the settings, so that a model is looked at once,
    whatever pair it is part of; the comparison needs no model.
    """

    def problems(self) -> list[str]:
        """Check the settings; return one line for each that cannot be used."""
        return []

    @abstractmethod
    def missing(self, identity: Identity) -> bool:
        """Tell whether a model has not been looked at with these settings.

        Args:
            identity: Identity of the model.
        """

    @abstractmethod
    def look(self, lm: LM) -> None:
        """Look at a model and keep the result.

        Args:
            lm: The model, on the device where it runs.
        """

    @abstractmethod
    def section(self, identities: Mapping[str, Identity]) -> Section:
        """Compare the two models of a pair by the kept results.

        Args:
            identities: Role -> identity of its model; each was looked at.

        Returns:
            Findings and tables.
        """

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, on the first rank, before the samples are explained."""
        lm = cast(LM, pl_module.lm)
        if trainer.is_global_zero and self.missing(lm.identity):
            self.look(lm)


class RowView(Callback, ABC):
    """An analysis that needs rows beyond those of the run: other responses, or another way to explain them.

    The analysis names the rows in terms of those that are known; the run reads them from the ledger or computes
    them, and repeats until nothing is missing.
    """

    @abstractmethod
    def requests(self, name: str, roles: Mapping[str, Role], rows: Rows) -> list[Request]:
        """Name the rows that the analysis needs of a role, as far as they can be named yet.

        Args:
            name: Name of the role.
            roles: Both roles.
            rows: The rows that are known; every row asked for so far is among them.
        """

    @abstractmethod
    def section(self, roles: Mapping[str, Role], rows: Rows) -> Section:
        """Compare the two roles, once every row asked for is known.

        Args:
            roles: Both roles.
            rows: The rows that are known.

        Returns:
            Findings and tables.
        """


class TrainingLook(Callback, ABC):
    """A measurement of a model while it is tuned (``train.py``).

    Attributes:
        command: What a report names as the next step; set by :meth:`attach`.
        sinks: Where numbers, tables and figures go; set by :meth:`attach`, else the loggers of the trainer.
    """

    def __init__(self) -> None:
        self.command = ""
        self.sinks: Sequence[Sink] = ()

    def attach(self, command: str, sinks: Sequence[Sink]) -> None:
        """Take what the command line knows, before the training starts.

        Args:
            command: The command that compares the start with the tuned model.
            sinks: Sinks that have started.
        """
        self.command, self.sinks = command, sinks

    def conclude(self, lm: LM, step: int) -> None:
        """Speak of the weights that are kept, where these are not the last ones; on the first rank only.

        Args:
            lm: The model that is kept, plain and frozen.
            step: Optimizer step that its weights are of.
        """

    def record(self) -> dict[str, Any]:
        """What was measured, as plain JSON values, for the record of the run; empty if nothing is to be kept."""
        return {}
