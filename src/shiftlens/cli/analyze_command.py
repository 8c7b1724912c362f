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

    from shiftlens.models.pair import pair_from_config
    from shiftlens.prompts.readers import read_prompts
    from shiftlens.report import log_analysis, print_summary, write_report, write_tables
    from shiftlens.report.make_sinks import finish, make_sinks
    from shiftlens.results.analysis import Analysis
    from shiftlens.run.pipeline import run
    from shiftlens.run.runner import is_main_rank
    from shiftlens.run.scores_run import run_scores, scores_options

    console = Console(quiet=not is_main_rank())
    config = resolved(cfg)
    folder = Path(HydraConfig.get().runtime.output_dir)
    analysis: Analysis | None
    if config["data"].get("kind") == "scores":
        # Leave out the unused groups, so that the logged configuration names no model that was not loaded.
        config = {key: value for key, value in config.items() if key not in NEEDS_MODEL}
        analysis = run_scores(scores_options(config), console)
    else:
        options = options_from_config(config)
        pair = pair_from_config(config["model"], config["paths"]["cache"])
        prompts = read_prompts(config["data"])
        callbacks = [hydra.utils.instantiate(node) for node in (config["callbacks"] or {}).values()]
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


def options_from_config(config: dict[str, Any]) -> Any:
    """Check the values of the configuration, and return them as the options of a run.

    Args:
        config: Configuration as plain values, with ``saliency``, ``data``, ``report``, ``seed`` and ``controls``.

    Returns:
        The :class:`~shiftlens.run.prepare.Options`.

    Raises:
        ConfigError: Some values are invalid; the message lists all of them.
    """
    from shiftlens.analyses.density.controls import controls_from_config
    from shiftlens.attribution import MODES, TARGETS, Engine, parse_budget
    from shiftlens.attribution.methods import method_from_config
    from shiftlens.run.prepare import RESPONSES, Options
    from shiftlens.scores.settings import Settings, level_problems

    saliency, data, report = config["saliency"], config["data"], config["report"]
    problems = level_problems(config)
    if saliency["mode"] not in MODES:
        problems.append(f"saliency.mode={saliency['mode']}: expected one of {', '.join(MODES)}")
    if saliency["target"] not in TARGETS:
        problems.append(f"saliency.target={saliency['target']}: expected one of {', '.join(TARGETS)}")
    if not isinstance(saliency["include_response"], bool):
        problems.append(f"saliency.include_response={saliency['include_response']}: expected true or false")
    try:
        method = method_from_config(saliency["method"])
    except ConfigError as error:
        problems.append(str(error))
    try:
        budget = parse_budget(saliency["memory_budget"])
    except ValueError as error:
        problems.append(f"saliency.memory_budget={error}")
    counts = {
        "saliency.batch_tokens": saliency["batch_tokens"],
        "data.max_new_tokens": data["max_new_tokens"],
        "report.maps": report["maps"],
    }
    if saliency["chunk"] is not None:
        counts["saliency.chunk"] = saliency["chunk"]
    if data["max_tokens"] is not None:
        counts["data.max_tokens"] = data["max_tokens"]
    problems += [
        f"{key}={value}: expected a whole number of at least 1"
        for key, value in counts.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < 1
    ]
    problems += [
        f"{key}={value}: expected a whole number of at least 0"
        for key, value in (("seed", config["seed"]), ("saliency.check_precision", saliency["check_precision"]))
        if isinstance(value, bool) or not isinstance(value, int) or value < 0
    ]
    if data["on_long"] not in ("refuse", "cut"):
        problems.append(f"data.on_long={data['on_long']}: expected refuse or cut")
    if data["responses"] not in RESPONSES:
        problems.append(f"data.responses={data['responses']}: expected one of {', '.join(RESPONSES)}")
    if problems:
        raise ConfigError("\n".join(problems))
    return Options(
        settings=Settings(saliency["L"], saliency["b"], saliency["p"]),
        engine=Engine(saliency["mode"], saliency["chunk"], saliency["target"], budget),
        method=method,
        batch_tokens=saliency["batch_tokens"],
        include_response=saliency["include_response"],
        check_precision=saliency["check_precision"],
        max_new_tokens=data["max_new_tokens"],
        max_tokens=data["max_tokens"],
        on_long=data["on_long"],
        on_error=data["on_error"],
        seed=config["seed"],
        responses=data["responses"],
        map_prompt=None if report["prompt"] is None else str(report["prompt"]),
        map_b=report["b"],
        maps=report["maps"],
        controls=controls_from_config(config.get("controls")),
    )
