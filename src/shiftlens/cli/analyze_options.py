"""Checks the configuration of ``analyze`` and gathers its options; all faults are reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shiftlens.analyses.density.controls import controls_from_config
from shiftlens.annotate import ANNOTATOR_RULES
from shiftlens.cli.trainer_rules import trainer_problems
from shiftlens.models.roles import ROLES
from shiftlens.prompts.readers import ON_ERROR, data_problems
from shiftlens.run.prepare import RESPONSES, Options
from shiftlens.run.scores_run import ScoresOptions
from shiftlens.scores.saliency_options import saliency_options, saliency_problems
from shiftlens.scores.settings import L_RULE
from shiftlens.support.setting_rules import SEED, Choice, Flag, Number, refuse, setting_problems
from shiftlens.words.lexicon import WORD_RULES

_WHOLE = {"seed": SEED, "dry_run": Flag()}
_MAPS = {"maps": Number(1)}


def options_from_config(config: Mapping[str, Any], problems: Sequence[str] = ()) -> Options:
    """Gather the options of a comparison of two models.

    Args:
        config: Resolved configuration of ``analyze``, as plain values.
        problems: Faults found elsewhere in the same configuration, to be reported with those found here.

    Raises:
        ConfigError: Lists every value that cannot be used.
    """
    saliency, data, report = config["saliency"], config["data"], config["report"]
    annotator = config["annotator"]
    refuse(
        [
            *saliency_problems(saliency, report),
            *data_problems(data),
            *setting_problems(data, {"responses": Choice(RESPONSES)}, "data."),
            *setting_problems(report, _MAPS, "report."),
            *setting_problems(config, _WHOLE),
            *trainer_problems(config["trainer"]),
            *setting_problems(config["words"], WORD_RULES, "words."),
            *setting_problems(annotator, ANNOTATOR_RULES.get(str(annotator["name"]), {}), "annotator."),
            *problems,
        ]
    )
    options = saliency_options(saliency)
    return Options(
        settings=options.settings,
        engine=options.engine,
        foil=options.foil,
        methods=options.methods,
        unit=options.unit,
        negative=options.negative,
        over_methods=options.over_methods,
        batch_tokens=options.batch_tokens,
        inputs=options.inputs,
        include_response=options.include_response,
        check_precision=options.check_precision,
        measure_costs=options.measure_costs,
        max_new_tokens=data["max_new_tokens"],
        max_tokens=data["max_tokens"],
        on_long=data["on_long"],
        on_error=data["on_error"],
        seed=config["seed"],
        responses=data["responses"],
        map_prompt=_id(report["prompt"]),
        map_b=report["b"],
        maps=report["maps"],
        controls=controls_from_config(config.get("controls")),
    )


def scores_options(config: Mapping[str, Any]) -> ScoresOptions:
    """Gather the options of an analysis of imported scores.

    Args:
        config: Resolved configuration of ``analyze``, as plain values; ``data`` as in ``conf/data/scores.yaml``.

    Raises:
        ConfigError: Lists every value that cannot be used.
    """
    data, saliency, report = config["data"], config["saliency"], config["report"]
    problems = saliency_problems(saliency, report)
    rules = {"levels": L_RULE, "limit": Number(1, optional=True), "on_error": ON_ERROR}
    problems += setting_problems(data, rules, "data.")
    problems += setting_problems(report, _MAPS, "report.") + setting_problems(config, _WHOLE)
    if not isinstance(data["datasets"], Mapping):
        problems.append(f"data.datasets={data['datasets']}: expected beginnings of ids and data sets, or {{}}")
    if not (isinstance(data["method"], str) and data["method"].strip()):
        problems.append(f"data.method={data['method']!r}: expected the name of a method of attribution")
    paths = {role: Path(str(data[role])).expanduser() for role in ROLES}
    problems += [f"data.{role}={path} does not exist" for role, path in paths.items() if not path.exists()]
    prompts = None if data["prompts"] is None else Path(str(data["prompts"])).expanduser()
    if prompts is not None and not prompts.is_file():
        problems.append(f"data.prompts={prompts} is not a file")
    if prompts is None and any(path.is_dir() for path in paths.values()):
        problems.append("a folder of pickles has no prompts: set data.prompts=FILE to the published table of them")
    refuse(problems)
    return ScoresOptions(
        base=paths["base"],
        tuned=paths["tuned"],
        prompts=prompts,
        name=str(data["name"]),
        datasets=data["datasets"],
        levels=data["levels"],
        limit=data["limit"],
        skip=data["on_error"] == "skip",
        settings=saliency_options(saliency).settings,
        seed=config["seed"],
        map_prompt=_id(report["prompt"]),
        map_b=report["b"],
        maps=report["maps"],
        controls=controls_from_config(config.get("controls")),
        method=data["method"],
    )


def _id(prompt: Any) -> str | None:
    return None if prompt is None else str(prompt)
