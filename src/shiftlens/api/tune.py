"""Tunes a model on prompts with answers, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from shiftlens.models.loading import LM
from shiftlens.models.quiet import quiet_libraries
from shiftlens.prompts.schema import Prompt
from shiftlens.results.provenance import provenance
from shiftlens.tuning.examples import examples
from shiftlens.tuning.fit import TuneRecord, fit
from shiftlens.tuning.save import save_tuned
from shiftlens.tuning.tune_options import tune_options


def tune(
    lm: LM,
    train: Sequence[Prompt],
    folder: str | Path,
    held_out: Sequence[Prompt] = (),
    seed: int = 0,
    **settings: Any,
) -> TuneRecord:
    """Tune a model on prompts with answers, and save it as ``folder/tuned``.

    Args:
        lm: Model from :func:`shiftlens.load`; tuned in place.
        train: Prompts with a response or a reference.
        folder: Folder for the checkpoints and the tuned model.
        held_out: Prompts with answers on which the loss is measured; the weights with the lowest loss are kept
            (``keep="last"``: the last weights). Without held-out prompts, the last weights are kept.
        seed: Random seed for the order of the prompts, the initial LoRA weights and dropout.
        **settings: Keys of the ``tune`` configuration group, see
            :class:`~shiftlens.tuning.tune_options.TuneOptions`; a missing key has its value in ``conf/tune``.
            ``trainer`` holds the arguments of the Lightning ``Trainer``.

    Returns:
        Losses, steps and seconds.

    Raises:
        ConfigError: Some settings are invalid; the message lists all of them.
        PromptError: Some prompts have no answer or are too long; the message lists all of them.

    Example:
        >>> import shiftlens as sl
        >>> from shiftlens.prompts.verifiable import build
        >>> lm = sl.load("bundled:base")  # doctest: +SKIP
        >>> sl.tune(lm, build("train"), "out", held_out=build("test"), rank=4)  # doctest: +SKIP
    """
    trainer = settings.pop("trainer", {"accelerator": "auto", "devices": 1})
    options = tune_options({"keep": "best", **settings} if held_out else settings, seed)
    quiet_libraries()
    to, start = Path(folder), lm.identity
    groups = [examples(some, lm.tokenizer, lm.template, options.max_tokens) for some in (train, held_out)]
    record = fit(lm, groups[0], groups[1], options, to, trainer, console=Console())
    run_record = provenance(start=start.to_dict(), settings=options.to_dict(), seed=seed, result=record.to_dict())
    save_tuned(lm.model, lm.tokenizer, to / "tuned", run_record, start.source)
    return record
