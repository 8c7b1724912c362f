"""Writes checkpoints whole or not at all, with nothing but plain values and tensors in them."""

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
    """Writes a new checkpoint beside the old one and then replaces it: a kill leaves one or the other."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; the file is on disk when this returns."""
        target = Path(path)
        # A run that was killed while it wrote leaves a partial file as large as the checkpoint.
        for left_over in target.parent.glob(f".{target.name}.*"):
            left_over.unlink()
        write_whole(target, lambda partial: torch.save(checkpoint, partial))

    def load_checkpoint(
        self, path: Any, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU; no code in the file is run."""
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded


def checkpointing(folder: Path, options: TuneOptions, monitor: str | None) -> list[Callback]:
    """Make the callbacks that save the state after each measurement of the held-out loss, and stop early.

    Args:
        folder: Folder of the checkpoints: ``last.ckpt`` to resume from, ``best.ckpt`` with weights only.
        options: Settings of the run; validate_every, keep and patience are used.
        monitor: Name of the held-out loss; ``None`` if there is none.

    Raises:
        ConfigError: A setting needs a held-out loss, and there is none.
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
    """Find the checkpoint to resume from.

    Args:
        ckpt_path: ``None`` for a new run, ``last`` for this folder's own checkpoint if there is one, or a file.
        folder: Folder of the checkpoints of the run.

    Raises:
        ConfigError: The file does not exist, or the folder has a checkpoint that a new run would overwrite.
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
