"""Runs the commands from a Hydra configuration; ``analyze`` writes a run folder with a report and tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from shiftlens.errors import ConfigError, ShiftLensError
from shiftlens.sweep import check_launcher, in_sweep, summarised, wandb_names

NEEDS_MODEL = ("model", "trainer", "callbacks", "words", "annotator")
"""Groups of the configuration that ``data=scores`` does not use."""


def analyze() -> None:
    """Compare a base and a tuned model: ``python analyze.py model=... data=...``."""
    try:
        check_launcher(sys.argv[1:])
    except ConfigError as error:
        sys.exit(f"Error: {error}")
    with summarised():
        _analyze_command()


@hydra.main(version_base="1.3", config_path="pkg://shiftlens.conf", config_name="analyze")
def _analyze_command(cfg: DictConfig) -> None:
    try:
        _analyze(cfg)
    except ShiftLensError as error:
        if in_sweep():
            raise  # the sweep stores the error in the job's record and continues with the other jobs
        print(f"\nError: {error}", file=sys.stderr)
        sys.exit(1)


@hydra.main(version_base="1.3", config_path="pkg://shiftlens.conf", config_name="train")
def train(cfg: DictConfig) -> None:
    """Tune a model and measure the shift meanwhile: ``python train.py model=... data=... tune=...``."""
    from shiftlens.cli.train_command import run_train

    try:
        run_train(resolved(cfg), Path(HydraConfig.get().runtime.output_dir))
    except ShiftLensError as error:
        print(f"\nError: {error}", file=sys.stderr)
        sys.exit(1)


def _analyze(cfg: DictConfig) -> None:
    # Imported here: `--help` and configuration errors need no torch.
    from rich.console import Console

    from shiftlens.cli.analyze_options import options_from_config, scores_options
    from shiftlens.cli.make_callbacks import make_callbacks
    from shiftlens.models.pair import pair_from_config
    from shiftlens.prompts.readers import read_prompts
    from shiftlens.report import log_analysis, print_summary, write_report, write_tables
    from shiftlens.report.make_sinks import finish, make_sinks
    from shiftlens.results.analysis import Analysis
    from shiftlens.run.dry_run import dry_run
    from shiftlens.run.pipeline import run
    from shiftlens.run.print_plan import print_plan
    from shiftlens.run.scores_run import run_scores
    from shiftlens.support.main_rank import is_main_rank

    console = Console(quiet=not is_main_rank())
    config = resolved(cfg)
    folder = Path(HydraConfig.get().runtime.output_dir)
    analysis: Analysis | None
    if config["dry_run"] is True and in_sweep():
        raise ConfigError("dry_run=true is for a single run: leave out -m, and give one value for each key")
    if config["data"].get("kind") == "scores":
        # Leave out the unused groups, so that the logged configuration names no model that was not loaded.
        config = {key: value for key, value in config.items() if key not in NEEDS_MODEL}
        options_of_scores = scores_options(config)
        if config["dry_run"]:
            print_plan([], [], console)
            return
        analysis = run_scores(options_of_scores, console)
    else:
        callbacks, problems = make_callbacks(config["callbacks"])
        options = options_from_config(config, problems)
        pair = pair_from_config(config["model"], config["paths"]["cache"])
        prompts = read_prompts(config["data"])
        if config["dry_run"]:
            print_plan(*dry_run(pair, prompts, options, config["trainer"], callbacks), console)
            return
        ledger = Path(config["paths"]["ledger"]).expanduser()
        analysis = run(pair, prompts, options, ledger, config["trainer"], callbacks, console)
    if analysis is None:
        return
    paths = [*write_tables(analysis, folder), write_report(analysis, folder / "report.html")]
    sinks = make_sinks(wandb_names(config["logger"]), config)
    log_analysis(analysis, sinks, folder / "report.html")
    lines = finish(sinks)
    if in_sweep():
        return  # the sweep prints one line per job and one summary of all jobs instead
    print_summary(analysis, paths, console)
    for line in lines:
        console.print(line, soft_wrap=True)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration as plain values, with all interpolations resolved.

    Args:
        cfg: Configuration composed by Hydra.

    Raises:
        ConfigError: A required key has no value, or an interpolation fails.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        hints = ", ".join(f"{key}=VALUE" for key in missing)
        raise ConfigError(f"the configuration needs a value: {hints}")
    try:
        values = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the configuration cannot be resolved: {error}") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
