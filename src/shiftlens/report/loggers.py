"""Make the configured Lightning loggers; Weights & Biases goes offline by itself where it must."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, WandbLogger


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
        settings = dict(node)
        if settings["_target_"].endswith("WandbLogger"):
            settings["mode"] = settings.get("mode") or ("online" if has_wandb_key() else "offline")
        logger: Logger = instantiate(settings)
        logger.log_hyperparams(dict(config))
        loggers.append(logger)
    return loggers


def has_wandb_key() -> bool:
    """Whether Weights & Biases can log in without asking; never touches the network.

    Starting a run without a key is an error in wandb, so ShiftLens asks first.
    """
    import wandb

    if wandb.setup().settings.mode in ("offline", "disabled"):
        return False
    return bool(wandb.login(prompt=False))


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
