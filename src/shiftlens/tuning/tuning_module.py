"""The language model under training, as a Lightning module."""

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
"""Names of the curves: mean cross-entropy in nats per response token."""


class TuningModule(LightningModule):
    """Train a model on dialogues; the loss is on responses only.

    Args:
        lm: what training starts from: tokenizer, template, identity.
        model: the model whose trainable weights are trained: ``lm.model``, or the same under LoRA.
        train: what it learns from.
        held_out: what it is measured on.
        options: how.

    Attributes:
        lm_source: what training started from.
        model: the model.
        history: [(step, name, value)] the loss of every step and look, in order.
        rate: highest learning rate.
        seconds: time spent in training so far, of all pieces of a resumed run.
    """

    def __init__(
        self, lm: LM, model: nn.Module, train: Sequence[Example], held_out: Sequence[Example], options: TuneOptions
    ) -> None:
        super().__init__()
        self.strict_loading = False  # a checkpoint has only what is trained; the rest is the start's
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
        """The model as it stands now, plain and frozen; other weights than LoRA's are shared with the training."""
        if is_sharded(self.model):
            raise ConfigError(
                "a look at the model while it is tuned needs it whole; use callbacks=none, or trainer=ddp"
            )
        at = f"step {self.global_step} of tuning"
        start = self.lm_source.identity
        # No two moments of any two runs are taken for one model, and none for the start.
        identity = replace(
            start,
            source=f"{start.source}, {at}",
            fingerprint=digest([start.fingerprint, self._run, self.global_step]),
        )
        return replace(self.lm_source, model=plain_model(self.model), identity=identity)

    def configure_model(self) -> None:
        """Cut the model over the processes where the strategy asks for it."""
        if self.device_mesh is not None and not is_sharded(self.model):
            shard(self.model, self.device_mesh)

    # Data

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The plan of the whole run."""
        return plan(self.train_examples, self.options, self.trainer.world_size)

    def train_dataloader(self) -> Any:
        """This rank's micro-batches."""
        pack = self.options.batching == "packed"
        return TrainBatches(self.train_examples, self.steps, self.trainer.global_rank, pack)

    def val_dataloader(self) -> Any:
        """This rank's held-out batches."""
        mine = held_out_batches(
            self.held_out_examples, self.options.batch, self.trainer.global_rank, self.trainer.world_size
        )
        return DataLoader(mine, batch_size=None)  # type: ignore[arg-type]  # a list is a map-style data set

    # Steps

    def on_fit_start(self) -> None:
        """Layers may have come in evaluation mode."""
        agree(self.run_hash, "settings or examples")
        self.train()
        self._began = time.monotonic()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The last step ends with a look at the held-out loss, wherever it falls."""
        if self.global_step >= self.trainer.max_steps:
            self.trainer.should_stop = True

    def on_fit_end(self) -> None:
        """Stop the clock."""
        self._tick()

    def _tick(self) -> float:
        now = time.monotonic()
        self.seconds, self._began = self.seconds + now - self._began, now
        return self.seconds

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The micro-batch's part of the step's loss."""
        # Dropout drawn from the number of the micro-batch is the same in a resumed run.
        torch.manual_seed(_seed(self.options.seed, batch.number))
        loss = token_losses(self.model, batch).sum() * batch.share
        self._step_loss.append(loss.detach() / self.options.accumulate)
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the step's loss, over all micro-batches and ranks."""
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
        """Sum the losses; the mean is taken over all ranks' tokens."""
        losses = token_losses(self.model, batch)
        wide = torch.float32 if losses.device.type == "mps" else torch.float64
        self._sums.append(torch.stack([losses.sum(), losses.new_tensor(len(losses))]).to(wide))

    def on_validation_epoch_end(self) -> None:
        """Log the mean held-out loss per token."""
        value = self._held_out()
        self._record(self.global_step, HELD_OUT, value)
        self.log(HELD_OUT, value, logger=False)  # for callbacks that watch it

    def _held_out(self) -> float:
        both = self.trainer.strategy.reduce(torch.stack(self._sums).sum(0), reduce_op="sum")
        self._sums.clear()
        return float(both[0] / both[1])

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Take the held-out loss before the first step."""
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
        # Not by `self.log`, which counts steps from 0 and writes the state after step k as k - 1.
        for logger in self.trainer.loggers:
            logger.log_metrics(values, step=step)

    # Optimizer

    def configure_optimizers(self) -> Any:
        """AdamW; the rate rises linearly and falls as a cosine."""
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
        """Keep only what is trained, and what the run is."""
        trained = {name for name, weight in self.named_parameters() if weight.requires_grad}
        kept = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
        checkpoint["state_dict"] = kept
        checkpoint["tuning"] = {
            "run": self.run_hash,
            "history": [list(entry) for entry in self.history],
            "seconds": self._tick(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another run."""
        found = checkpoint.get("tuning", {})
        if found.get("run") != self.run_hash:
            raise ConfigError(
                "this checkpoint is of a run with other settings, examples or weights to start from; "
                "resume with the settings of that run, or begin a new one with ckpt_path=null in another folder"
            )
        self.history = [(int(step), str(name), float(value)) for step, name, value in found["history"]]
        self.seconds = float(found["seconds"])

    @property
    def run_hash(self) -> str:
        """Names the run: settings, examples and start."""
        data = [data_hash(self.train_examples), data_hash(self.held_out_examples)]
        return digest([self.options.to_dict(), data, self.lm_source.identity.hash])


def cosine(step: int, total: int, warmup: float) -> float:
    """Share of the highest rate at a step: a linear rise, then a cosine that ends at 0 behind the last step.

    Args:
        step: from 0.
        total: steps of the run.
        warmup: share of them that rise.

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
    return int(digest([seed, number])[:15], 16)
