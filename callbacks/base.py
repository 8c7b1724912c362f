"""Defines the base classes of the analyses that a run makes in addition to the importance scores."""

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
    """Analysis that needs each model by itself, followed by a comparison of the two results.

    The result of a model is stored on disk under the model's identity and the settings, so a model is analyzed
    once, whichever pair it belongs to. The comparison reads the stored results and needs no model.
    """

    def problems(self) -> list[str]:
        """Check the settings; return one line for each that cannot be used."""
        return []

    @abstractmethod
    def missing(self, identity: Identity) -> bool:
        """Return whether the result of a model with these settings is not stored yet.

        Args:
            identity: Content hash of the model.
        """

    @abstractmethod
    def look(self, lm: LM) -> None:
        """Analyze a model and store the result.

        Args:
            lm: The model, on the device on which it runs.
        """

    @abstractmethod
    def section(self, identities: Mapping[str, Identity]) -> Section:
        """Compare the stored results of a pair and return the findings and tables as a section.

        Args:
            identities: Content hash of the model of each role; the results of both models must be stored.
        """

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Analyze the model on the first rank, before its responses are explained."""
        lm = cast(LM, pl_module.lm)
        if trainer.is_global_zero and self.missing(lm.identity):
            self.look(lm)


class RowView(Callback, ABC):
    """Analysis that needs further attribution rows: of other responses, or made by another method.

    The analysis names the rows it needs, given the rows that are known. The run reads them from the ledger or
    computes them, and calls :meth:`requests` again until no row is missing.
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
    """Measurement of a model while it is tuned (``train.py``).

    Attributes:
        command: Command that the report gives as the next step; set by :meth:`attach`.
        sinks: Outputs for numbers, tables and figures; set by :meth:`attach`, otherwise the trainer's loggers.
    """

    def __init__(self) -> None:
        self.command = ""
        self.sinks: Sequence[Sink] = ()

    def attach(self, command: str, sinks: Sequence[Sink]) -> None:
        """Set the command and the sinks, before the training starts.

        Args:
            command: Command that compares the starting model with the tuned model.
            sinks: Sinks that have been started.
        """
        self.command, self.sinks = command, sinks

    def conclude(self, lm: LM, step: int) -> None:
        """Measure the weights that are kept if they are not the last ones; runs on the first rank only.

        Args:
            lm: The model that is kept, frozen and without LoRA modules.
            step: Optimizer step after which the model had these weights.
        """

    def record(self) -> dict[str, Any]:
        """Return the measurements for ``record.json``, as plain JSON values; empty if there are none."""
        return {}
