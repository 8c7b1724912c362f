"""Runs the command ``train``, which writes a run folder with a tuned model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console


def run_train(config: dict[str, Any], folder: Path) -> None:
    """Tune a model according to the configuration.

    Args:
        config: Resolved configuration.
        folder: Folder of the run.

    Raises:
        ShiftLensError: The configuration, the prompts or the model cannot be used; where possible, the error is
            raised before any work.
    """
    # Imported here: `--help` and configuration errors need no torch.
    from shiftlens.callbacks import TrainingLook
    from shiftlens.cli.make_callbacks import make_callbacks
    from shiftlens.cli.train_options import tuning_from_config
    from shiftlens.models.pair import pair_from_config
    from shiftlens.prompts.readers import read_prompts
    from shiftlens.report.make_sinks import finish, make_sinks
    from shiftlens.run.tune_pipeline import next_command, tune
    from shiftlens.scratch import pretrain
    from shiftlens.support.conf_files import choices, model_config
    from shiftlens.support.main_rank import is_main_rank

    console = Console(quiet=not is_main_rank())
    callbacks, problems = make_callbacks(config.get("callbacks"))
    options = tuning_from_config(config, problems)
    pair = pair_from_config(config["model"], config["paths"]["cache"])
    train = read_prompts(config["data"])
    measured = config.get("held_out") or {}
    held_out = read_prompts(measured) if measured.get("reader") else None  # ~data@held_out leaves no reader
    sinks = make_sinks(config["logger"], config) if is_main_rank() else []
    loggers = [logger for sink in sinks for logger in sink.trainer_loggers]
    lines: list[str] = []
    try:
        if config.get("pretrain"):
            base = pretrain(config["pretrain"], folder, config["trainer"], loggers, console, config["seed"])
            config["model"] = _from_scratch(config["model"], _short(base))
            pair = pair_from_config(config["model"], config["paths"]["cache"])
        to = _short(folder / "tuned")
        name = config["model"]["name"]
        named = model_config(name) if name in choices("model") else {}
        command = next_command(config["model"], named, options, config["tune"]["start"], to)
        for callback in callbacks:
            if isinstance(callback, TrainingLook):
                callback.attach(command, sinks)
        record = tune(
            pair, config["tune"]["start"], train, held_out, options, folder, config["trainer"], callbacks, loggers,
            console, config["ckpt_path"],
        )  # fmt: skip
    finally:
        lines = finish(sinks, int(sys.exc_info()[0] is not None))
    if not is_main_rank():
        return
    first, kept = record.held_out_loss[:1], dict(record.held_out_loss).get(record.kept)
    if first and kept is not None:
        console.print(f"held-out loss {first[0][1]:.4f} -> {kept:.4f} (step {record.kept} of {record.planned})")
    console.print(f"the tuned model: {to} ({record.seconds:.0f} s of training)", soft_wrap=True)
    for line in lines:
        console.print(line, soft_wrap=True)
    console.print(f"next: {command}", soft_wrap=True, highlight=False, markup=False)


def _from_scratch(model: dict[str, Any], base: Path) -> dict[str, Any]:
    """Return the ``model`` group with the newly pretrained model as both base and tuned model."""
    none = dict.fromkeys(("base_revision", "tuned_revision", "adapter"))
    return {**model, **none, "name": "from_scratch", "base": str(base), "tuned": str(base)}


def _short(path: Path) -> Path:
    """Return the path relative to the working directory, if it lies below that; otherwise the path itself."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
