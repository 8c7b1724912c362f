"""Defines the Lightning module that trains a language model on dialogues."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from shiftlens.errors import ConfigError, ShiftLensError
from shiftlens.models.identity import digest
from shiftlens.models.loading import LM
from shiftlens.tuning.batches import Batch, TrainBatches, held_out_batches
from shiftlens.tuning.examples import Example, data_hash
from shiftlens.tuning.lora import plain_model
from shiftlens.tuning.loss import token_losses
from shiftlens.tuning.plan import Step, plan
from shiftlens.tuning.ranks import agree, is_sharded, shard
from shiftlens.tuning.tune_options import TuneOptions

LOSS, HELD_OUT = "train/loss", "held_out/loss"
"""Names of the two loss curves; each is a mean cross-entropy in nats per response token."""


class TuningModule(LightningModule):
    """Trains a model on dialogues, with the loss on response tokens only.

    Args:
        lm: Model that training starts from, with its tokenizer, template and identity.
        model: Model whose trainable weights are updated: ``lm.model``, or ``lm.model`` under LoRA.
        train: Examples to train on.
        held_out: Examples on which the held-out loss is computed.
        options: Settings of the run.

    Attributes:
        lm_source: The ``lm`` that training started from.
        model: The model under training.
        history: [(step, name, value)] Every training loss and held-out loss so far, in order.
        rate: Highest learning rate of the schedule.
        seconds: Training time in seconds; a resumed run includes the time before the interruption.
    """

    def __init__(
        self, lm: LM, model: nn.Module, train: Sequence[Example], held_out: Sequence[Example], options: TuneOptions
    ) -> None:
        super().__init__()
        # A checkpoint holds the trained weights only; the frozen ones come from `lm`.
        self.strict_loading = False
        self.lm_source = lm
        self.model = model
        self.train_examples, self.held_out_examples, self.options = train, held_out, options
        self.history: list[tuple[int, str, float]] = []
        self.rate = options.rate
        self._run = uuid.uuid4().hex
        self.seconds = 0.0
        self._began = time.monotonic()
        self._step_loss: list[Tensor] = []
        self._sums: list[Tensor] = []

    # The current model

    def snapshot(self) -> LM:
        """Return the current model without LoRA layers, frozen and in evaluation mode.

        All weights that LoRA does not change are shared with the model under training, not copied.

        Raises:
            ConfigError: The weights are sharded over several processes.
        """
        if is_sharded(self.model):
            raise ConfigError(
                "measuring the model during tuning needs whole weights, but trainer=fsdp shards them; "
                "use callbacks=none, or trainer=ddp"
            )
        at = f"step {self.global_step} of tuning"
        start = self.lm_source.identity
        # The fingerprint differs between steps, between runs, and from the starting model.
        identity = replace(
            start,
            source=f"{start.source}, {at}",
            fingerprint=digest([start.fingerprint, self._run, self.global_step]),
        )
        return replace(self.lm_source, model=plain_model(self.model), identity=identity)

    def configure_model(self) -> None:
        """Shard the model over the processes if the strategy provides a device mesh."""
        if self.device_mesh is not None and not is_sharded(self.model):
            shard(self.model, self.device_mesh)

    # Data

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Examples of every optimizer step of the run, for all ranks."""
        return plan(self.train_examples, self.options, self.trainer.world_size)

    def train_dataloader(self) -> Any:
        """Return this rank's micro-batches of the whole run."""
        pack = self.options.batching == "packed"
        return TrainBatches(self.train_examples, self.steps, self.trainer.global_rank, pack)

    def val_dataloader(self) -> Any:
        """Return a loader of this rank's held-out batches."""
        batches = held_out_batches(
            self.held_out_examples, self.options.batch, self.trainer.global_rank, self.trainer.world_size
        )
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list is a map-style data set

    # Steps

    def on_fit_start(self) -> None:
        """Check that all ranks have the same settings and examples, and start the clock."""
        agree(self.run_hash, "settings or examples")
        self.train()  # a loaded model is in evaluation mode
        self._began = time.monotonic()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Request a stop after the last step; Lightning then validates once more, whatever the interval."""
        if self.global_step >= self.trainer.max_steps:
            self.trainer.should_stop = True

    def on_fit_end(self) -> None:
        """Add the time since the last reading to ``seconds``."""
        self._tick()

    def _tick(self) -> float:
        now = time.monotonic()
        self.seconds, self._began = self.seconds + now - self._began, now
        return self.seconds

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the micro-batch's contribution to the loss of its optimizer step (a scalar tensor)."""
        # Seeding by the number of the micro-batch gives a resumed run the same dropout masks.
        torch.manual_seed(_seed(self.options.seed, batch.number))
        loss = token_losses(self.model, batch).sum() * batch.share
        self._step_loss.append(loss.detach() / self.options.accumulate)
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the loss of the step, averaged over all micro-batches and ranks, and the learning rate.

        Raises:
            ShiftLensError: The loss is infinite or not a number.
        """
        mean = self.trainer.strategy.reduce(torch.stack(self._step_loss).sum(), reduce_op="mean")
        self._step_loss.clear()
        value = float(mean)
        if not math.isfinite(value):
            raise ShiftLensError(
                f"the loss is not finite at step {self.global_step + 1}; use a lower tune.rate, or "
                "trainer.precision=32-true"
            )
        self._record(self.global_step + 1, LOSS, value)
        self._curves(self.global_step + 1, {"train/rate": optimizer.param_groups[0]["lr"]})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the sum of a batch's token losses and the number of its tokens, for the mean over all ranks."""
        losses = token_losses(self.model, batch)  # [targets]
        sum_dtype = torch.float32 if losses.device.type == "mps" else torch.float64  # MPS has no float64
        self._sums.append(torch.stack([losses.sum(), losses.new_tensor(len(losses))]).to(sum_dtype))  # [2]

    def on_validation_epoch_end(self) -> None:
        """Log the mean held-out loss per token over all ranks."""
        value = self._held_out()
        self._record(self.global_step, HELD_OUT, value)
        self.log(HELD_OUT, value, logger=False)  # early stopping and checkpoints read it from here

    def _held_out(self) -> float:
        """Return the mean held-out loss per token over all ranks, and clear the sums."""
        loss_and_count = self.trainer.strategy.reduce(torch.stack(self._sums).sum(0), reduce_op="sum")  # [2]
        self._sums.clear()
        return float(loss_and_count[0] / loss_and_count[1])

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Compute and log the held-out loss before the first step of a new run."""
        agree(str(self.global_step), "the checkpoint that they go on from")
        if self.global_step or not self.held_out_examples:
            return
        self.eval()
        for batch in self.val_dataloader():
            batch = self.trainer.strategy.batch_to_device(batch)
            with self.trainer.precision_plugin.val_step_context():
                self.validation_step(batch, 0)
        self.train()
        value = self._held_out()
        self._record(0, HELD_OUT, value)

    def _record(self, step: int, name: str, value: float) -> None:
        self.history.append((step, name, value))
        self._curves(step, {name: value})

    def _curves(self, step: int, values: dict[str, float]) -> None:
        # Not `self.log`: it counts steps from 0, so it would log the state after step k as step k - 1.
        for logger in self.trainer.loggers:
            logger.log_metrics(values, step=step)

    # Optimizer

    def configure_optimizers(self) -> Any:
        """Return AdamW with a learning rate that rises linearly and then falls as a cosine.

        Weight decay applies to matrices only, not to vectors such as biases and norm gains.
        """
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        groups = [
            {"params": [w for w in trained if w.ndim >= 2], "weight_decay": self.options.weight_decay},
            {"params": [w for w in trained if w.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = AdamW([group for group in groups if group["params"]], lr=self.rate)
        total = len(self.steps)
        schedule = LambdaLR(optimizer, lambda step: cosine(step, total, self.options.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Reduce a checkpoint to the trained weights, and add the run's hash, history and training time."""
        trained = {name for name, weight in self.named_parameters() if weight.requires_grad}
        kept = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
        checkpoint["state_dict"] = kept
        checkpoint["tuning"] = {
            "run": self.run_hash,
            "history": [list(entry) for entry in self.history],
            "seconds": self._tick(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the history and the training time from a checkpoint of the same run.

        Raises:
            ConfigError: The checkpoint belongs to another run.
        """
        saved_run = checkpoint.get("tuning", {})
        if saved_run.get("run") != self.run_hash:
            raise ConfigError(
                "this checkpoint is of a run with other settings, examples or weights to start from; "
                "resume with the settings of that run, or begin a new one with ckpt_path=null in another folder"
            )
        self.history = [(int(step), str(name), float(value)) for step, name, value in saved_run["history"]]
        self.seconds = float(saved_run["seconds"])

    @property
    def run_hash(self) -> str:
        """Hash of the settings, the examples and the starting model; equal for a run and its resumption."""
        data = [data_hash(self.train_examples), data_hash(self.held_out_examples)]
        return digest([self.options.to_dict(), data, self.lm_source.identity.hash])


def cosine(step: int, total: int, warmup: float) -> float:
    """Return the factor on the highest learning rate at a step.

    The factor rises linearly to 1, then falls as a cosine that would reach 0 one step after the last.

    Args:
        step: Number of the step, from 0.
        total: Number of steps of the run.
        warmup: Share of the steps over which the rate rises.

    Example:
        >>> [round(cosine(step, 5, warmup=0.2), 2) for step in range(5)]
        [1.0, 1.0, 0.85, 0.5, 0.15]
        >>> [round(cosine(step, 4, warmup=0.5), 2) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    rise = math.ceil(total * warmup)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min((step - rise) / max(total - rise, 1), 1.0)))


def _seed(seed: int, number: int) -> int:
    """Return the dropout seed of micro-batch ``number``: 60 bits, as PyTorch seeds must fit in 64."""
    return int(digest([seed, number])[:15], 16)
