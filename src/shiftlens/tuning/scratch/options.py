"""What a pre-training from random weights is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from shiftlens.errors import ConfigError
from shiftlens.tuning.options import TuneOptions, tune_options
from shiftlens.tuning.scratch.text import PACKAGES
from shiftlens.tuning.scratch.tokenizer import LEAST_VOCABULARY


@dataclass(frozen=True)
class TextOptions:
    """The text; keys ``pretrain.text``.

    Args:
        packages: installed packages whose documentation is read.
        files: one's own text files instead; ``None`` is the packages.
        max_chars: most characters; ``None`` is all there are.
    """

    packages: tuple[str, ...] = PACKAGES
    files: tuple[str, ...] | None = None
    max_chars: int | None = 4_000_000


@dataclass(frozen=True)
class ModelOptions:
    """The size of the LLaMA; keys ``pretrain.model``.

    Args:
        vocabulary: most tokens of the tokenizer.
        width: of the hidden states.
        layers: number of layers.
        heads: attention heads of a layer; `width` is divided among them.
        kv_heads: key and value heads, shared by the heads in groups.
        feed_forward: width of the feed-forward layers.
        context: most tokens the model reads.
    """

    vocabulary: int = 4096
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    feed_forward: int = 352
    context: int = 512


@dataclass(frozen=True)
class PretrainOptions:
    """The configuration group ``pretrain``.

    Args:
        text: what is read.
        model: what is made.
        block: tokens of one training example.
        repeats: share of the blocks that repeat themselves, see :func:`shiftlens.tuning.scratch.blocks.blocks`.
        held_out: share of the text set apart to measure the loss on.
        training: how it is trained.
    """

    text: TextOptions = field(default_factory=TextOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    block: int = 256
    repeats: float = 0.5
    held_out: float = 0.01
    training: TuneOptions = field(default_factory=lambda: TuneOptions(method="full"))

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)


def pretrain_options(settings: Mapping[str, Any], seed: int) -> PretrainOptions:
    """Read the configuration group ``pretrain``.

    Args:
        settings: the group as plain values.
        seed: the run's seed.

    Raises:
        ConfigError: lists every value that cannot be used.

    Example:
        >>> pretrain_options({"model": {"heads": 3}, "block": 1}, seed=0)
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: pretrain.model.width=128: expected a multiple of twice heads=3
        pretrain.model.heads=3: expected a multiple of kv_heads=4
        pretrain.block=1: expected a whole number from 16 to context=512
    """
    groups = {name: dict(settings.get(name) or {}) for name in ("text", "model", "training")}
    known = {"text": TextOptions, "model": ModelOptions, "training": TuneOptions}
    problems = _unknown("pretrain", settings, PretrainOptions)
    for name in ("text", "model"):
        problems += _unknown(f"pretrain.{name}", groups[name], known[name])
    if problems:
        raise ConfigError("\n".join(problems))
    for key in ("packages", "files"):
        if isinstance(groups["text"].get(key), list):
            groups["text"][key] = tuple(map(str, groups["text"][key]))
    text, model = TextOptions(**groups["text"]), ModelOptions(**groups["model"])
    plain = {key: settings[key] for key in ("block", "repeats", "held_out") if key in settings}
    problems = [*_text_problems(text), *_model_problems(model)]
    options = PretrainOptions(text, model, **plain)
    problems += _block_problems(options)
    try:
        training = tune_options({"method": "full", **groups["training"]}, seed)
        if training.method != "full":
            problems.append(f"pretrain.training.method={training.method}: new weights are trained in full")
    except ConfigError as error:
        problems += [line.replace("tune.", "pretrain.training.", 1) for line in str(error).splitlines()]
    if problems:
        raise ConfigError("\n".join(problems))
    return PretrainOptions(text, model, training=training, **plain)


def _unknown(where: str, given: Mapping[str, Any], options: Any) -> list[str]:
    names = {one.name for one in fields(options)}
    return [
        f"{where}.{key} is not known; there are {', '.join(sorted(names))}" for key in given if key not in names
    ]


def _text_problems(text: TextOptions) -> list[str]:
    problems = []
    for key in ("packages", "files"):
        value = getattr(text, key)
        if not (value is None and key == "files") and not (isinstance(value, tuple) and value):
            problems.append(
                f"pretrain.text.{key}={value}: expected a list, e.g. [{'numpy' if key[0] == 'p' else 'my.txt'}]"
            )
    if text.max_chars is not None and not _whole(text.max_chars, 1):
        problems.append(
            f"pretrain.text.max_chars={text.max_chars}: expected a whole number of at least 1, or null"
        )
    return problems


def _model_problems(model: ModelOptions) -> list[str]:
    problems = [
        f"pretrain.model.{name}={value}: expected a whole number of at least {least}"
        for name, value in asdict(model).items()
        if not _whole(value, least := {"vocabulary": LEAST_VOCABULARY, "context": 16}.get(name, 1))
    ]
    if problems:
        return problems
    if model.width % (2 * model.heads):  # rotary positions turn pairs of a head's dimensions
        problems.append(f"pretrain.model.width={model.width}: expected a multiple of twice heads={model.heads}")
    if model.heads % model.kv_heads:
        problems.append(f"pretrain.model.heads={model.heads}: expected a multiple of kv_heads={model.kv_heads}")
    return problems


def _block_problems(options: PretrainOptions) -> list[str]:
    problems = []
    context = options.model.context
    if not _whole(options.block, 16) or (_whole(context, 16) and options.block > context):
        problems.append(f"pretrain.block={options.block}: expected a whole number from 16 to context={context}")
    if not _number(options.repeats) or not 0 <= options.repeats <= 1:
        problems.append(f"pretrain.repeats={options.repeats}: expected a number from 0 to 1")
    if not _number(options.held_out) or not 0 < options.held_out < 1:
        problems.append(f"pretrain.held_out={options.held_out}: expected a number between 0 and 1")
    return problems


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
