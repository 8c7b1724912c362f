"""Rows for samples: from the ledger where they are, from the model where they are missing."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from transformers.utils import logging as transformers_logging

from shiftlens.attribution import AttributionModule, Costs, Engine, Ledger, Request, Row, calibrated
from shiftlens.callbacks import LedgerWriter, View
from shiftlens.errors import ConfigError
from shiftlens.models.loading import LM, load_lm
from shiftlens.prepare import Role


@dataclass
class Runner:
    """Explains samples with one Lightning ``Trainer`` after another.

    Args:
        ledger_root: folder of the ledger.
        cache: folder of fetched models, fingerprints and calibrations.
        trainer: arguments of the ``Trainer``.
        callbacks: further Lightning callbacks of the prediction runs.
        engine: how samples are explained.
        batch_tokens: tokens generated together.
        console: where progress is told.
    """

    ledger_root: Path
    cache: Path
    trainer: Mapping[str, Any]
    callbacks: Sequence[Callback]
    engine: Engine
    batch_tokens: int
    console: Console

    def rows(self, name: str, role: Role, requests: Sequence[Request]) -> dict[str, Row]:
        """The rows of some samples of one role, by key.

        Args:
            name: what to call this piece of work.
            role: the model.
            requests: the samples.

        Returns:
            Key -> row. Under several ranks every rank gets all rows.

        Raises:
            ConfigError: there are fewer samples than ranks.
            RuntimeError: a sample did not reach the ledger.
        """
        ledger = Ledger(self.ledger_root, role.identity)
        by_key = {request.key: request for request in requests}
        missing = ledger.missing(by_key)
        done = len(by_key) - len(missing)
        unseen = [view for view in self.callbacks if isinstance(view, View) and view.missing(role.identity)]
        if not missing and not unseen:
            self.console.print(f"[bold]{name}[/]: all {done} samples are in the ledger; no model work")
            return ledger.read(by_key)
        self.console.print(
            f"[bold]{name}[/]: {len(missing)} samples to explain, {done} in the ledger; {role.spec.source}",
            soft_wrap=True,
        )
        _quiet_libraries()
        trainer = self._trainer(ledger, len(by_key))
        lm = load_lm(role.spec, role.layers, role.template, self.cache)
        engine = replace(self.engine, costs=self._costs(lm, trainer)) if missing else self.engine
        module = AttributionModule(lm, [by_key[key] for key in missing], engine, self.batch_tokens)
        with _tf32(role.identity.dtype == "tf32"):
            trainer.predict(module, return_predictions=False)
        trainer.strategy.barrier()  # other ranks' rows
        rows = ledger.read(by_key)
        lost = [key for key in by_key if key not in rows]
        if lost:
            raise RuntimeError(f"{name}: {len(lost)} samples did not reach the ledger in {ledger.folder}")
        if missing:
            picked = Counter(rows[key].engine for key in missing)
            self.console.print(f"  engines: {', '.join(f'{mode} for {count}' for mode, count in picked.items())}")
        return rows

    def _trainer(self, ledger: Ledger, samples: int) -> Trainer:
        trainer = Trainer(
            **instantiate(dict(self.trainer)),
            inference_mode=False,  # derivatives are taken inside the step
            callbacks=[LedgerWriter(ledger), *self.callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the module deals the samples out by cost
        )
        if samples < trainer.world_size:
            raise ConfigError(
                f"trainer.devices gives {trainer.world_size} ranks for {samples} prompts; "
                f"use trainer.devices={samples} or more prompts (data.limit)"
            )
        return trainer

    def _costs(self, lm: LM, trainer: Trainer) -> Costs:
        if self.engine.mode != "auto":
            return self.engine.costs
        if getattr(lm.model, "hf_device_map", None) is None:
            lm.model.to(trainer.strategy.root_device)
        costs = calibrated(lm.model, self.cache)
        if costs.measured:
            self.console.print(
                f"  a token row costs {costs.forward_row * 1e3:.3g} ms in forward mode, "
                f"{costs.reverse_row * 1e3:.3g} ms in reverse (timed once on this machine)"
            )
        return costs


def is_main_rank() -> bool:
    """Whether this process writes the outputs; the others of a parallel run only explain samples."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def _tf32(on: bool) -> Iterator[None]:
    """Let GPUs multiply float32 matrices with 10-bit mantissas, for a while."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _quiet_libraries() -> None:
    """Start-up lines, hints about workers and bars of half a second say nothing about this use."""
    transformers_logging.disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    for noise in (".*is_gradient_checkpointing.*", ".*treespec, LeafSpec.*"):
        warnings.filterwarnings("ignore", message=noise)
