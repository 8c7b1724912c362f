"""Make the configured Lightning loggers; Weights & Biases goes offline by itself where it must."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, WandbLogger

log = logging.getLogger(__name__)


def make_loggers(group: Mapping[str, Any] | None, config: Mapping[str, Any]) -> list[Logger]:
    """Instantiate the ``logger`` group and log the resolved configuration.

    Args:
        group: name -> a node with ``_target_``.
        config: the whole resolved configuration, as plain values.

    Returns:
        The loggers, started.
    """
    loggers: list[Logger] = []
    for node in (group or {}).values():
        is_wandb = node["_target_"].endswith("WandbLogger")
        logger: Logger = _wandb(dict(node)) if is_wandb else instantiate(dict(node))
        logger.log_hyperparams(dict(config))
        loggers.append(logger)
    return loggers


def _wandb(settings: dict[str, Any]) -> WandbLogger:
    """Start a W&B run; offline where there is no key, or no answer within half a minute."""
    import wandb

    # The closing lines below say what matters; wandb's own summary would bury the findings.
    os.environ.setdefault("WANDB_SILENT", "true")
    mode = settings.pop("mode", None) or os.environ.get("WANDB_MODE")
    if mode is None:
        mode = "online" if has_wandb_key() else "offline"
    make = instantiate({**settings, "_partial_": True})
    logger: WandbLogger = make(mode=mode, settings=wandb.Settings(init_timeout=30))
    try:
        logger.experiment  # noqa: B018  # starts the run
    except wandb.errors.Error as error:  # unreachable, or the key was refused: nothing may be lost
        log.warning(
            "Weights & Biases cannot be reached with this key; the run is kept offline: %s",
            str(error).splitlines()[0],
        )
        logger = make(mode="offline")
    return logger


def has_wandb_key() -> bool:
    """Whether Weights & Biases can log in without asking; a key that cannot be verified does not count.

    Starting a run without a key is an error in wandb, so ShiftLens asks first.
    """
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except wandb.errors.Error as error:
        log.warning("Weights & Biases cannot be used with this key; the run is kept offline: %s", error)
        return False


def finish(loggers: list[Logger]) -> list[str]:
    """Close the loggers; returns lines a user should see, such as how to upload an offline run."""
    lines = []
    for logger in loggers:
        logger.finalize("success")
        if isinstance(logger, WandbLogger):
            import wandb

            experiment = logger.experiment
            if experiment.settings.mode == "offline":
                lines.append(f"W&B run kept offline; upload it with: wandb sync {experiment.settings.sync_dir}")
            elif experiment.url:
                lines.append(f"W&B: {experiment.url}")
            wandb.finish()
    return lines
