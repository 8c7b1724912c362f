"""Runs a tuning from the starting model and the prompts to the saved tuned model; contains no formulas."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from rich.console import Console

from shiftlens.callbacks import TrainingLook
from shiftlens.errors import ConfigError
from shiftlens.models.loading import LM
from shiftlens.models.opening import open_role
from shiftlens.models.pair import Pair, find_pair
from shiftlens.models.quiet import quiet_libraries
from shiftlens.prompts.readers import PromptSet
from shiftlens.results.provenance import provenance
from shiftlens.support.main_rank import is_main_rank
from shiftlens.tuning.checkpoints import where_to_resume
from shiftlens.tuning.examples import Example, examples
from shiftlens.tuning.fit import TuneRecord, fit
from shiftlens.tuning.lora import plain_model
from shiftlens.tuning.ranks import whole_weights
from shiftlens.tuning.save import save_tuned
from shiftlens.tuning.tune_options import TuneOptions

STARTS = ("base", "tuned")
DEFAULT_PAIR = "bundled"


def tune(
    pair: Pair,
    start: str,
    train: PromptSet,
    held_out: PromptSet | None,
    options: TuneOptions,
    folder: Path,
    trainer: Mapping[str, Any],
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    console: Console | None = None,
    ckpt_path: str | None = None,
) -> TuneRecord:
    """Tune one model of a pair and save it as ``folder/tuned``.

    Args:
        pair: Pair that the starting model belongs to.
        start: Model of the pair from which the tuning starts, ``base`` or ``tuned``.
        train: Prompts with answers to learn from.
        held_out: Prompts with answers on which the loss is measured; ``None`` for none.
        options: Options of the tuning.
        folder: Folder of the run.
        trainer: Arguments of the Lightning ``Trainer``.
        callbacks: Further callbacks; records of a :class:`~shiftlens.callbacks.TrainingLook` go into
            ``record.json``.
        loggers: Loggers of the curves.
        console: Console for progress messages; ``None`` for no messages.
        ckpt_path: ``None``, ``last`` or a checkpoint, see :func:`shiftlens.tuning.checkpoints.where_to_resume`.

    Returns:
        Losses, steps and seconds.

    Raises:
        ConfigError: Settings are invalid or contradict each other.
        SourceError: The model cannot be loaded.
        PromptError: Some prompts have no answer or are too long; the message lists all of them.
    """
    if start not in STARTS:
        raise ConfigError(f"tune.start={start}: expected one of {', '.join(STARTS)}")
    console = console or Console(quiet=True)
    quiet_libraries()
    resume = where_to_resume(ckpt_path, folder / "checkpoints")
    lm = _load(pair, start, options)
    context = getattr(lm.model.config.get_text_config(), "max_position_embeddings", None)
    most = min((n for n in (options.max_tokens, context) if n is not None), default=None)

    def encoded(prompts: PromptSet | None) -> list[Example]:
        if prompts is None:
            return []
        return examples(prompts.prompts, lm.tokenizer, lm.template, most, prompts.where)

    record = fit(
        lm, encoded(train), encoded(held_out), options, folder, trainer, callbacks, loggers, console, resume
    )
    weights = whole_weights(lm.model) if record.ranks > 1 else None
    if is_main_rank():
        looks = [callback for callback in callbacks if isinstance(callback, TrainingLook)]
        _conclude(looks, lm, record.kept)
        run_record = _record(lm, pair, start, train, held_out, options, trainer, record, looks)
        save_tuned(lm.model, lm.tokenizer, folder / "tuned", run_record, pair.role(start).source, weights)
    return record


def _conclude(looks: Sequence[TrainingLook], lm: LM, kept: int) -> None:
    """Let each measurement conclude on the weights that are kept, which may not be the last ones."""
    for look in looks:
        look.conclude(replace(lm, model=plain_model(lm.model)), kept)


def _load(pair: Pair, start: str, options: TuneOptions) -> LM:
    if options.method == "full" and pair.role(start).dtype == "auto":
        # Small optimizer steps would be rounded away at lower precision; trainer.precision can still make the
        # matrix products cheaper.
        in_float32: dict[str, Any] = {start: replace(pair.role(start), dtype="float32")}
        pair = replace(pair, **in_float32)
    return open_role(pair, start, find_pair(pair, [start]))


def _record(
    lm: LM,
    pair: Pair,
    start: str,
    train: PromptSet,
    held_out: PromptSet | None,
    options: TuneOptions,
    trainer: Mapping[str, Any],
    record: TuneRecord,
    looks: Sequence[TrainingLook],
) -> dict[str, Any]:
    records = {type(look).__name__: look.record() for look in looks}
    measured = {name: record for name, record in records.items() if record}
    return provenance(
        what=f"{options.method} tuning of {pair.name}:{start} on {train.where}",
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        seed=options.seed,
        start={**lm.identity.to_dict(), "template": lm.template},
        settings={**options.to_dict(), "precision": str(trainer.get("precision") or "32-true")},
        data={"train": train.where, "held_out": None if held_out is None else held_out.where},
        result=record.to_dict(),
        **({"measured": measured} if measured else {}),
    )


def next_command(
    model: Mapping[str, Any], named: Mapping[str, Any], options: TuneOptions, start: str, to: Path
) -> str:
    """Return the command that compares the pair's base model with the tuned model.

    Args:
        model: Configuration group ``model`` of the run.
        named: The same group as in its file, without the changes of the command line; ``{}`` without a file.
        options: Options of the tuning.
        start: Model of the pair from which the tuning started.
        to: Folder of the tuned model.

    Example:
        >>> named = {"name": "mine", "base": "a", "tuned": "b"}
        >>> next_command({**named, "base": "my dir"}, named, TuneOptions(), "base", Path("out/tuned"))
        "python analyze.py model=mine model.base='my dir' model.tuned=out/tuned"
    """
    words = ["python analyze.py"]
    if named and model["name"] != DEFAULT_PAIR:
        words.append(f"model={model['name']}")
    on_top = start == "tuned" and options.method == "lora"  # the saved adapter applies to the tuned model
    kept = ("base", "base_revision", "template", *(("tuned", "tuned_revision") if on_top else ()))
    default = {"template": "auto"}
    before, after = {**default, **named}, {**default, **model}
    changed = {key: after[key] for key in kept if after.get(key) != before.get(key)}
    changed["adapter" if on_top else "tuned"] = str(to)
    return " ".join([*words, *(f"model.{key}={shlex.quote(str(value))}" for key, value in changed.items())])
