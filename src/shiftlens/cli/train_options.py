"""Checks the configuration of ``train`` and gathers its options; all faults are reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shiftlens.attribution.foils import FOILS
from shiftlens.cli.trainer_rules import trainer_problems
from shiftlens.prompts.readers import data_problems
from shiftlens.run.prepare import RESPONSES
from shiftlens.run.tune_pipeline import STARTS
from shiftlens.scores.saliency_options import saliency_problems
from shiftlens.scratch import pretrain_problems
from shiftlens.support.setting_rules import Choice, refuse, setting_problems
from shiftlens.tuning.tune_options import TuneOptions, tune_options, tune_problems
from shiftlens.words.lexicon import WORD_RULES


def tuning_from_config(config: Mapping[str, Any], problems: Sequence[str] = ()) -> TuneOptions:
    """Gather the options of a tuning run, once every group of the configuration has been checked.

    Args:
        config: Resolved configuration of ``train``, as plain values.
        problems: Faults found elsewhere in the same configuration, to be reported with those found here.

    Raises:
        ConfigError: Lists every value that cannot be used, also in groups that this run does not need.
    """
    tune, seed = config["tune"], config["seed"]
    faults = tune_problems(tune, seed) + setting_problems(tune, {"start": Choice(STARTS)}, "tune.")
    if config.get("pretrain"):
        faults += pretrain_problems(config["pretrain"], seed)
    for group in ("data", "held_out"):
        prompts = config.get(group) or {}
        if prompts.get("reader"):  # ~data@held_out leaves no reader
            faults += data_problems(prompts, group)
            faults += setting_problems(prompts, {"responses": Choice(RESPONSES)}, f"{group}.")
    faults += saliency_problems(config["saliency"], {}) + setting_problems(config["words"], WORD_RULES, "words.")
    if config["saliency"].get("foil", FOILS[0]) != FOILS[0]:
        faults.append(f"saliency.foil={config['saliency']['foil']}: a training has {FOILS[0]} only")
    refuse([*faults, *trainer_problems(config["trainer"]), *problems])
    return tune_options(tune, seed)
