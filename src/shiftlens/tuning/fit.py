"""Runs one training: sets up the Lightning ``Trainer``, trains the model, and returns a record of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.tuner.tuning import Tuner
from rich.console import Console
from torch import nn
from transformers import PreTrainedModel

from shiftlens.errors import ConfigError
from shiftlens.models.loading import LM
from shiftlens.models.quiet import quiet_libraries
from shiftlens.tuning.checkpoints import BEST, WholeFiles, checkpointing
from shiftlens.tuning.examples import Example, data_hash
from shiftlens.tuning.lora import with_lora
from shiftlens.tuning.loss import check_packing
from shiftlens.tuning.plan import plan
from shiftlens.tuning.ranks import set_weights
from shiftlens.tuning.training_bar import TuneProgress
from shiftlens.tuning.tune_options import TuneOptions
from shiftlens.tuning.tuning_module import HELD_OUT, LOSS, TuningModule


@dataclass(frozen=True)
class TuneRecord:
    """Record of a training run.

    Args:
        steps: Number of optimizer steps taken.
        planned: Number of optimizer steps planned; more than ``steps`` if the run stopped early.
        kept: Step whose weights were kept.
        train_loss: [steps] Mean loss per response token of each step, in nats.
        held_out_loss: [(step, loss)] Mean held-out loss per response token, in nats; the first is from before
            training.
        train_examples, held_out_examples: Number of examples.
        train_hash, held_out_hash: Hash of the examples, see :func:`shiftlens.tuning.examples.data_hash`.
        trained_weights: Number of scalar weights that were trained.
        rate: Highest learning rate.
        ranks: Number of processes.
        seconds: Training time in seconds, measurements included; a resumed run includes the time before the
            interruption.
    """

    steps: int
    planned: int
    kept: int
    train_loss: tuple[float, ...]
    held_out_loss: tuple[tuple[int, float], ...]
    train_examples: int
    held_out_examples: int
    train_hash: str
    held_out_hash: str
    trained_weights: int
    rate: float
    ranks: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary of plain values."""
        return asdict(self)


def fit(
    lm: LM,
    train: Sequence[Example],
    held_out: Sequence[Example],
    options: TuneOptions,
    folder: Path,
    trainer: Mapping[str, Any],
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    console: Console | None = None,
    ckpt_path: Path | None = None,
) -> TuneRecord:
    """Train a model on dialogues or blocks of text.

    Args:
        lm: Model to start from. Afterwards ``lm.model`` is the trained model, in evaluation mode (under LoRA a
            ``PeftModel``).
        train: Examples to train on.
        held_out: Examples on which the held-out loss is computed; may be empty with ``keep=last``.
        options: Settings of the run.
        folder: Run folder; ``folder/checkpoints/last.ckpt`` is written after each held-out loss.
        trainer: Arguments of the Lightning ``Trainer``.
        callbacks: Further Lightning callbacks.
        loggers: Loggers that receive the loss curves.
        console: Console for progress messages; ``None`` prints nothing.
        ckpt_path: Checkpoint of the same run to resume from; ``None`` starts a new run.

    Returns:
        The record of the run.

    Raises:
        ConfigError: Settings contradict each other or the model; raised before training starts.
        ShiftLensError: The loss is infinite or not a number.
    """
    console = console or Console(quiet=True)
    quiet_libraries()
    module = _module(lm, train, held_out, options)
    checkpoints = folder / "checkpoints"
    keepers = checkpointing(checkpoints, options, HELD_OUT if held_out else None)
    planned = len(plan(train, options))
    trained = [weight for weight in module.model.parameters() if weight.requires_grad]
    count = sum(weight.numel() for weight in trained)
    runner = Trainer(
        **instantiate(dict(trainer)),
        callbacks=[*callbacks, TuneProgress(console), *keepers],
        logger=list(loggers) or False,
        plugins=[WholeFiles()],
        max_epochs=1,  # the loader yields the whole run, all passes over the data included
        max_steps=planned,
        accumulate_grad_batches=options.accumulate,
        gradient_clip_val=options.clip,
        val_check_interval=min(options.validate_every, planned) * options.accumulate,
        check_val_every_n_epoch=None,
        limit_val_batches=None if held_out else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the plan already splits the examples over the ranks
    )
    plan(train, options, runner.world_size)  # raises ConfigError if there are too many ranks
    if options.lr_find and ckpt_path is None:
        _find_rate(module, trainer, runner.world_size, planned, console)
    what, unit = (
        ("tuning", "dialogues") if any(one.prompt for one in train) else ("pre-training", "blocks of text")
    )
    console.print(
        f"[bold]{what}[/]: {len(train)} {unit}, {planned} steps of {options.batch}, "
        f"{count:,} trained weights of {sum(w.numel() for w in module.model.parameters()):,}"
        + (f"; going on from {ckpt_path}" if ckpt_path else ""),
        soft_wrap=True,
    )
    runner.fit(module, ckpt_path=ckpt_path, weights_only=True)
    kept = runner.global_step
    if options.keep == "best":
        best = torch.load(runner.strategy.broadcast(checkpoints / BEST), map_location="cpu", weights_only=True)
        set_weights(module, best["state_dict"])
        kept = int(best["global_step"])
    lm.model = module.model.eval()
    return TuneRecord(
        steps=runner.global_step,
        planned=planned,
        kept=kept,
        train_loss=tuple(round(value, 6) for _, name, value in module.history if name == LOSS),
        held_out_loss=tuple((step, round(value, 6)) for step, name, value in module.history if name == HELD_OUT),
        train_examples=len(train),
        held_out_examples=len(held_out),
        train_hash=data_hash(train),
        held_out_hash=data_hash(held_out),
        trained_weights=count,
        rate=module.rate,
        ranks=runner.world_size,
        seconds=round(module.seconds, 1),
    )


def _module(lm: LM, train: Sequence[Example], held_out: Sequence[Example], options: TuneOptions) -> TuningModule:
    """Return the module to train, with LoRA and gradient checkpointing as the options say.

    Raises:
        ConfigError: The model does not support one of the options.
    """
    if getattr(lm.model, "hf_device_map", None) is not None:
        raise ConfigError("model.device_map spreads a model for analysis only; to tune one, use trainer=fsdp")
    if options.batching == "packed":
        check_packing(lm.model, lm.model.config.get_text_config().vocab_size)
    model: nn.Module = lm.model
    if options.method == "lora":
        model = with_lora(lm.model, options)
    else:
        model.requires_grad_(True)
    if options.gradient_checkpointing:
        inner: PreTrainedModel = lm.model
        if not inner.supports_gradient_checkpointing:
            raise ConfigError("tune.gradient_checkpointing=true: this model has no such mode; set it to false")
        inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return TuningModule(lm, model, train, held_out, options).train()


def _find_rate(module: TuningModule, trainer: Mapping[str, Any], ranks: int, steps: int, console: Console) -> None:
    """Set ``module.rate`` by Lightning's learning-rate finder; keep the option's rate if the finder suggests none.

    Raises:
        ConfigError: There is more than one process.
    """
    if ranks > 1:
        raise ConfigError("tune.lr_find=true works with one process; find the rate with trainer.devices=1 first")
    searcher = Trainer(
        **instantiate(dict(trainer)),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=module.options.accumulate,
        gradient_clip_val=module.options.clip,
        limit_val_batches=0,
        max_epochs=1,
    )
    search = Tuner(searcher).lr_find(
        module, attr_name="rate", num_training=min(100, steps), min_lr=1e-6, max_lr=1e-2
    )
    module.history.clear()
    if search is None or search.suggestion() is None:
        module.rate = module.options.rate
        console.print(f"  the search suggests no learning rate; keeping {module.rate:g}")
    else:
        console.print(f"  learning rate found: {module.rate:.3g}")
