"""Defines and checks the settings of pre-training from random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from shiftlens.errors import ConfigError
from shiftlens.tuning.options import TuneOptions, tune_options
from shiftlens.tuning.scratch.text import PACKAGES
from shiftlens.tuning.scratch.tokenizer import LEAST_VOCABULARY

LEAST_BLOCK = 16
"""Smallest block, and smallest context of a model, in tokens; less is hardly a text."""


@dataclass(frozen=True)
class TextOptions:
    """Settings of the text to train on: the keys of ``pretrain.text``.

    Args:
        packages: Installed packages whose documentation is read.
        files: Text files to read instead of the packages; ``None`` reads the packages.
        max_chars: Number of characters after which reading stops; ``None`` reads everything.
    """

    packages: tuple[str, ...] = PACKAGES
    files: tuple[str, ...] | None = None
    max_chars: int | None = 4_000_000


@dataclass(frozen=True)
class ModelOptions:
    """Size of the LLaMA: the keys of ``pretrain.model``.

    Args:
        vocabulary: Largest number of tokens of the tokenizer.
        width: Width of the hidden states.
        layers: Number of layers.
        heads: Number of attention heads of a layer; ``width`` is divided equally among them.
        kv_heads: Number of key and value heads of a layer; each is shared by ``heads / kv_heads`` attention heads.
        feed_forward: Width of the feed-forward layers.
        context: Largest number of tokens that the model can read.
    """

    vocabulary: int = 2048
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    feed_forward: int = 352
    context: int = 512


@dataclass(frozen=True)
class PretrainOptions:
    """Settings of pre-training: the configuration group ``pretrain``.

    Args:
        text: Text to train on.
        model: Size of the model.
        block: Number of tokens of one training example.
        repeats: Share of the blocks that contain every passage twice, see
            :func:`shiftlens.tuning.scratch.blocks.blocks`.
        held_out: Share of the characters on which the held-out loss is computed.
        training: Settings of the training.
    """

    text: TextOptions = field(default_factory=TextOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    block: int = 128
    repeats: float = 0.5
    held_out: float = 0.01
    training: TuneOptions = field(default_factory=lambda: TuneOptions(method="full"))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary of plain values."""
        return asdict(self)


def pretrain_options(settings: Mapping[str, Any], seed: int) -> PretrainOptions:
    """Read the configuration group ``pretrain``; missing keys get their defaults.

    Args:
        settings: The group as plain values.
        seed: Random seed of the run.

    Returns:
        The checked settings.

    Raises:
        ConfigError: Lists every key that does not exist, or every value that cannot be used.

    Example:
        >>> pretrain_options({"model": {"heads": 3}, "block": 1}, seed=0)
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: pretrain.model.width=128: expected a multiple of twice heads=3
        pretrain.model.heads=3: expected a multiple of kv_heads=4
        pretrain.block=1: expected a whole number from 16 to model.context=512
    """
    given = {name: dict(settings.get(name) or {}) for name in ("text", "model", "training")}
    problems = _unknown("pretrain", settings, PretrainOptions)
    for name, kind in (("text", TextOptions), ("model", ModelOptions)):
        problems += _unknown(f"pretrain.{name}", given[name], kind)
    if problems:
        raise ConfigError("\n".join(problems))
    # Values are checked before the options are made, so that one error lists all problems.
    text = {**asdict(TextOptions()), **given["text"]}
    model = {**asdict(ModelOptions()), **given["model"]}
    own = {key: settings.get(key, getattr(PretrainOptions, key)) for key in ("block", "repeats", "held_out")}
    problems += [*_text_problems(text), *_model_problems(model), *_block_problems(own, model["context"])]
    training: TuneOptions | None = None
    try:
        training = tune_options({"method": "full", **given["training"]}, seed)
    except ConfigError as error:
        problems += [line.replace("tune.", "pretrain.training.", 1) for line in str(error).splitlines()]
    if training is not None and training.method != "full":
        problems.append(f"pretrain.training.method={training.method}: new weights are trained in full")
    if problems or training is None:
        raise ConfigError("\n".join(problems))
    for key in ("packages", "files"):
        text[key] = None if text[key] is None else tuple(map(str, text[key]))
    return PretrainOptions(
        TextOptions(**text),
        ModelOptions(**model),
        own["block"],
        float(own["repeats"]),
        float(own["held_out"]),
        training,
    )


def _unknown(where: str, given: Mapping[str, Any], options: Any) -> list[str]:
    """Return an error message for each key that is not a field of the dataclass ``options``."""
    names = {one.name for one in fields(options)}
    return [
        f"{where}.{key} is not known; there are {', '.join(sorted(names))}" for key in given if key not in names
    ]


def _text_problems(text: Mapping[str, Any]) -> list[str]:
    """Return an error message for each value of ``pretrain.text`` that cannot be used."""
    problems = []
    for key, one in (("packages", "numpy"), ("files", "my.txt")):
        value = text[key]
        if not (value is None and key == "files") and not (isinstance(value, list | tuple) and value):
            problems.append(f"pretrain.text.{key}={value}: expected a list, e.g. [{one}]")
    most = text["max_chars"]
    if most is not None and not _whole(most, 1):
        problems.append(f"pretrain.text.max_chars={most}: expected a whole number of at least 1, or null")
    return problems


def _model_problems(model: Mapping[str, Any]) -> list[str]:
    """Return an error message for each value of ``pretrain.model`` that cannot be used."""
    least = {"vocabulary": LEAST_VOCABULARY, "context": LEAST_BLOCK}
    problems = [
        f"pretrain.model.{name}={value}: expected a whole number of at least {least.get(name, 1)}"
        for name, value in model.items()
        if not _whole(value, least.get(name, 1))
    ]
    if problems:
        return problems
    width, heads, kv_heads = model["width"], model["heads"], model["kv_heads"]
    if width % (2 * heads):  # rotary position embeddings need an even number of dimensions per head
        problems.append(f"pretrain.model.width={width}: expected a multiple of twice heads={heads}")
    if heads % kv_heads:
        problems.append(f"pretrain.model.heads={heads}: expected a multiple of kv_heads={kv_heads}")
    return problems


def _block_problems(own: Mapping[str, Any], context: Any) -> list[str]:
    """Return an error message for each of block, repeats and held_out that cannot be used."""
    block, repeats, held_out = own["block"], own["repeats"], own["held_out"]
    problems = []
    if not _whole(block, LEAST_BLOCK) or (_whole(context, LEAST_BLOCK) and block > context):
        problems.append(
            f"pretrain.block={block}: expected a whole number from {LEAST_BLOCK} to model.context={context}"
        )
    if not _number(repeats) or not 0 <= repeats <= 1:
        problems.append(f"pretrain.repeats={repeats}: expected a number from 0 to 1")
    if not _number(held_out) or not 0 < held_out < 1:
        problems.append(f"pretrain.held_out={held_out}: expected a number between 0 and 1")
    return problems


def _number(value: Any) -> bool:
    """Return whether a value is a number and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any, least: int) -> bool:
    """Return whether a value is a whole number of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
