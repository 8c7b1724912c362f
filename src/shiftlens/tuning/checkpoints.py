"""Writes and finds checkpoints. A checkpoint is never half-written and holds only plain values and tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from shiftlens.errors import ConfigError
from shiftlens.support.whole_files import write_whole
from shiftlens.tuning.tune_options import TuneOptions

LAST, BEST = "last.ckpt", "best.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Lightning plugin that replaces a checkpoint in one step.

    The new file is written beside the old one and then renamed, so that a killed run leaves one of the two.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint to ``path``; when this method returns, the file is on disk."""
        target = Path(path)
        # A run that was killed while it wrote leaves a partial file as large as the checkpoint.
        for left_over in target.parent.glob(f".{target.name}.*"):
            left_over.unlink()
        write_whole(target, lambda partial: torch.save(checkpoint, partial))

    def load_checkpoint(
        self, path: Any, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU, without running code that the file may contain."""
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded


def checkpointing(folder: Path, options: TuneOptions, monitor: str | None) -> list[Callback]:
    """Return the callbacks that save checkpoints after each validation and stop early.

    Args:
        folder: Folder of the checkpoints: ``last.ckpt`` to resume from, ``best.ckpt`` with weights only.
        options: Settings of the run; used are validate_every, keep and patience.
        monitor: Name of the held-out loss; ``None`` if there are no held-out examples.

    Raises:
        ConfigError: ``keep=best`` or ``patience`` is set, but there are no held-out examples.
    """
    if monitor is None:
        if options.patience is not None or options.keep == "best":
            raise ConfigError(
                "there are no held-out examples: set tune.keep=last and tune.patience=null, or name some with "
                "data@held_out=NAME"
            )
        return [ModelCheckpoint(folder, "last", every_n_train_steps=options.validate_every, **_PLAIN)]
    callbacks: list[Callback] = []
    if options.patience is not None:
        callbacks.append(
            EarlyStopping(
                monitor, patience=options.patience, check_on_train_epoch_end=False, log_rank_zero_only=True
            )
        )
    if options.keep == "best":
        callbacks.append(ModelCheckpoint(folder, "best", monitor=monitor, save_weights_only=True, **_PLAIN))
    return [*callbacks, ModelCheckpoint(folder, "last", **_PLAIN)]


_PLAIN: dict[str, Any] = {
    "save_on_train_epoch_end": False,
    "enable_version_counter": False,
    "auto_insert_metric_name": False,
}


def where_to_resume(ckpt_path: str | None, folder: Path) -> Path | None:
    """Return the checkpoint to resume from, or ``None`` to start a new run.

    Args:
        ckpt_path: ``None`` for a new run, ``last`` for the checkpoint of this folder if there is one, or a file.
        folder: Folder of this run's checkpoints.

    Raises:
        ConfigError: The file does not exist, or a new run would overwrite a checkpoint in the folder.
    """
    own = folder / LAST
    if ckpt_path is None:
        if own.exists():
            raise ConfigError(f"{own} is there already: go on with ckpt_path=last, or set another hydra.run.dir")
        return None
    if ckpt_path == "last":
        return own if own.exists() else None
    path = Path(ckpt_path).expanduser()
    if not path.is_file():
        raise ConfigError(f"ckpt_path={ckpt_path}: no such file; expected null, last, or a checkpoint")
    return path
