"""Gets the attribution rows of samples: reads them from the ledger, and computes those that are missing."""

from __future__ import annotations

import gc
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from rich.console import Console

from shiftlens.attribution import AttributionModule, Costs, Engine, Ledger, Request, Row, calibrated
from shiftlens.attribution.methods import Gradient, Method
from shiftlens.attribution.role import Role
from shiftlens.callbacks import LedgerWriter, RunningScore, View
from shiftlens.errors import ConfigError
from shiftlens.models.identity import digest
from shiftlens.models.loading import LM, load_lm
from shiftlens.models.quiet import quiet_libraries
from shiftlens.scores.settings import Settings
from shiftlens.support.main_rank import is_main_rank
from shiftlens.sweep import may_start_ranks


@dataclass
class Runner:
    """Explains samples, with a new Lightning ``Trainer`` for each call of :meth:`rows`.

    Args:
        ledger_root: Folder of the ledger.
        cache: Folder of fetched models, fingerprints and calibrations.
        trainer: Arguments of the ``Trainer``.
        callbacks: Lightning callbacks of the prediction runs, in addition to the ledger's.
        engine: Attribution engine.
        batch_tokens: Number of tokens generated together.
        console: Console for progress messages.
        settings: L, b and p of the mean instruction score that is printed after each run.
        method: Method of attribution of that score.
        measure_costs: Whether the cost of a token row is measured on this machine; if not, the engine's is used.

    Attributes:
        costs: Costs that the mode of each response was chosen by, for each role with responses explained so far.
    """

    ledger_root: Path
    cache: Path
    trainer: Mapping[str, Any]
    callbacks: Sequence[Callback]
    engine: Engine
    batch_tokens: int
    console: Console
    settings: Settings = field(default_factory=Settings)
    method: Method = field(default_factory=Gradient)
    measure_costs: bool = True
    costs: dict[str, Costs] = field(default_factory=dict, init=False)
    _loaded: tuple[Role, LM] | None = field(default=None, init=False, repr=False)

    def rows(self, name: str, role: Role, requests: Sequence[Request]) -> dict[str, Row]:
        """Return the rows of some samples of one role, by key.

        Args:
            name: Name of this piece of work in progress messages.
            role: Role whose model explains the samples.
            requests: Requests of the samples.

        Returns:
            Row of each key. With several ranks, every rank gets all rows.

        Raises:
            RuntimeError: A sample did not reach the ledger.
        """
        ledger = Ledger(self.ledger_root, role.identity)
        by_key = {request.key: request for request in requests}
        if _first_rank_decides(self._work_left(ledger, role, by_key), digest(sorted(by_key))):
            running = RunningScore(self.settings, self.method, role.encoded)
            trainer = self._trainer(ledger, running)
            with self._locked(name, ledger, by_key, trainer):
                if trainer.world_size > 1 or self._work_left(ledger, role, by_key):
                    rows = self._explain(name, role, ledger, by_key, trainer)
                    if not math.isnan(running.mean):
                        self.console.print(f"  mean instruction score of these samples: {running.mean:.3f}")
                    return rows
        self.console.print(f"[bold]{name}[/]: all {len(by_key)} samples are in the ledger; no model work")
        return _all_rows(name, ledger, by_key)

    def _work_left(self, ledger: Ledger, role: Role, requests: Mapping[str, Request]) -> bool:
        """Return whether a row is not in the ledger, or an analysis has no stored result of the role's model."""
        views_left = any(isinstance(view, View) and view.missing(role.identity) for view in self.callbacks)
        return views_left or bool(ledger.missing(requests))

    @contextmanager
    def _locked(self, name: str, ledger: Ledger, keys: Iterable[str], trainer: Trainer) -> Iterator[None]:
        """Hold a lock on the samples, after waiting for any other run that explains them.

        The jobs of a sweep start at the same time with the same samples; the lock lets one of them do the work.
        With several ranks there is no lock: a rank that waited for it and then had no work left would never reach
        the barrier at which the other ranks wait.
        """
        if trainer.world_size > 1:
            yield
            return
        lock = FileLock(ledger.folder / f"{digest(sorted(keys))}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.console.print(f"[bold]{name}[/]: another run explains these samples; waiting for it")
            lock.acquire(poll_interval=0.5)
        try:
            yield
        finally:
            lock.release()

    def _explain(
        self, name: str, role: Role, ledger: Ledger, by_key: Mapping[str, Request], trainer: Trainer
    ) -> dict[str, Row]:
        missing = ledger.missing(by_key)
        done = len(by_key) - len(missing)
        self.console.print(
            f"[bold]{name}[/]: {len(missing)} samples to explain, {done} in the ledger; {role.spec.source}",
            soft_wrap=True,
        )
        lm = self._model(role)
        with _tf32(role.identity.dtype == "tf32"):
            engine = self.engine
            if missing and engine.mode in ("auto", "mixed"):
                self.costs[role.spec.role] = self._costs(lm, trainer)
                engine = replace(engine, costs=self.costs[role.spec.role])
            module = AttributionModule(
                lm, list(by_key.values()), engine, self.batch_tokens, done=by_key.keys() - set(missing)
            )
            trainer.predict(module, return_predictions=False)
        trainer.strategy.barrier()  # other ranks' rows
        rows = _all_rows(name, ledger, by_key)
        if missing:
            picked = Counter(rows[key].engine for key in missing)
            self.console.print(f"  engines: {', '.join(f'{mode} for {count}' for mode, count in picked.items())}")
        return rows

    def _model(self, role: Role) -> LM:
        """Return the model of a role; if another model is loaded, release it first, so that memory holds one."""
        if self._loaded is None or self._loaded[0] is not role:
            self.release()
            self._loaded = role, load_lm(role.spec, role.layers, role.template, self.cache, role.identity)
        return self._loaded[1]

    def release(self) -> None:
        """Free the memory of the loaded model."""
        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def check_ranks(self, prompts: int) -> None:
        """Check, before any work starts, that there are at least as many prompts as ranks.

        Args:
            prompts: Number of prompts of the run.

        Raises:
            ConfigError: There are more ranks than prompts.
        """
        quiet_libraries()
        ranks = Trainer(**instantiate(dict(self.trainer)), logger=False, enable_checkpointing=False).world_size
        if prompts < ranks:
            raise ConfigError(
                f"trainer.devices gives {ranks} ranks for {prompts} prompts; "
                f"use trainer.devices={prompts} or more prompts (data.limit)"
            )

    def _trainer(self, ledger: Ledger, *more: Callback) -> Trainer:
        trainer = Trainer(
            **instantiate(dict(self.trainer)),
            inference_mode=False,  # derivatives are taken inside the step
            callbacks=[LedgerWriter(ledger), *more, *self.callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the module distributes the samples over the ranks by cost
        )
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if environment is not None and not (environment.creates_processes_externally or may_start_ranks()):
            raise ConfigError(
                f"trainer.devices gives {trainer.world_size} ranks for each job of this sweep, which its "
                "launcher cannot start; use trainer.devices=1 (jobs run side by side anyway), launcher=local, or "
                f"launcher=slurm with launcher.tasks_per_node={trainer.world_size}"
            )
        return trainer

    def _costs(self, lm: LM, trainer: Trainer) -> Costs:
        if not self.measure_costs:
            return self.engine.costs
        if getattr(lm.model, "hf_device_map", None) is None:
            lm.model.to(trainer.strategy.root_device)
        costs = calibrated(lm.model, self.cache)
        if costs.measured_at:
            self.console.print(
                f"  a token row costs {costs.forward_row * 1e3:.3g} ms in forward mode, "
                f"{costs.reverse_row * 1e3:.3g} ms in reverse (measured on this machine, {costs.measured_at})"
            )
        return costs


def _all_rows(name: str, ledger: Ledger, requests: Mapping[str, Request]) -> dict[str, Row]:
    """Return the rows of all requests from the ledger, by key; an error if one is missing."""
    rows = ledger.read(requests)
    lost = [key for key in requests if key not in rows]
    if lost:
        raise RuntimeError(f"{name}: {len(lost)} samples did not reach the ledger in {ledger.folder}")
    return rows


_STARTED_FOR = "SHIFTLENS_RANKS_STARTED_FOR"


def _first_rank_decides(work_left: bool, work: str) -> bool:
    """Return whether the first rank has work left, on all ranks.

    The ranks read the ledger at different times, and another run may fill it in between; all ranks must still
    take the same branch.

    Args:
        work_left: Whether this rank has work left.
        work: Name of the work, the same on all ranks.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        answer = [work_left]
        torch.distributed.broadcast_object_list(answer)
        return answer[0]
    if is_main_rank():
        if work_left:
            os.environ[_STARTED_FOR] = work  # the ranks that this process may start now begin with the same work
        return work_left
    return work == os.environ[_STARTED_FOR] if _STARTED_FOR in os.environ else work_left


@contextmanager
def _tf32(on: bool) -> Iterator[None]:
    """Set whether GPUs multiply float32 matrices with 10-bit mantissas (TF32); restore the setting afterwards."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
